"""What every command prints with: a terminal when there is one, plain text when piped, JSON."""

from __future__ import annotations

import codecs
import dataclasses
import io
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comity.errors import ComityError, ConfigError

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH: Final = 100
_NARROWEST: Final = 30
_LIKE: Final = "comity-alike"


class _Alike(dict[int, str]):
    """ASCII for what we print beyond it; a question mark for all else beyond."""

    def __missing__(self, code: int) -> str:
        return chr(code) if code < _ASCII_END else "?"


_ASCII_END: Final = 128
_ALIKE: Final = _Alike(
    {
        0xB1: "+/-",  # plus-minus
        0x2500: "-",  # the rule under a table's head
        0x201C: '"',  # quotation marks
        0x201D: '"',
        0x2019: "'",
        0x2013: "-",  # dashes
        0x2014: "-",
        0x2026: "...",
    }
)


def json_option(function: F) -> F:
    """Adds `--json` as the argument `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
    )(function)


def console() -> Console:
    """A console on standard output; plain and of fixed width when that is not a terminal."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", PIPED_WIDTH))
    return Console(width=width, highlight=False, soft_wrap=False)


def speaks_unicode(stream: object) -> bool:
    """Whether a stream can write every character."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name.startswith("utf")


def degrade_gracefully() -> None:
    """Lets standard streams that cannot write a character write one like it, such as +/- for ±."""
    codecs.register_error(_LIKE, _written_alike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not speaks_unicode(stream):
            stream.reconfigure(errors=_LIKE)


def _written_alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return error.object[error.start : error.end].translate(_ALIKE), error.end


def print_wrapped(
    out: Console, text: str, *, indent: int = 0, hanging: int | None = None, style: str = ""
) -> None:
    """Prints `text` in lines of the console's width, no space at their ends.

    Args:
        out: Where to.
        text: Plain text; its own line breaks and double spaces do not count.
        indent: Spaces before the first line.
        hanging: Spaces before the others; as many as before the first when None.
        style: Of the whole.
    """
    lines = textwrap.wrap(
        text,
        width=max(_NARROWEST, out.width),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if hanging is None else hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        out.print(Text(line, style=style), soft_wrap=True)


def print_table(out: Console, table: Table) -> None:
    """Prints a table; where nobody sees a terminal, without spaces at the ends of its lines."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        out.print(Text(line.rstrip()), soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Writes `document` as one indented JSON object."""
    plain = not speaks_unicode(sys.stdout)
    click.echo(json.dumps(document, indent=2, ensure_ascii=plain, default=str))


def print_error(error: ComityError) -> None:
    """Says what is wrong, each fault on its line, and what to do about it, on standard error.

    Where the caller asked for `--json`, also as one object on standard output.
    """
    faults = list(error.faults) if isinstance(error, ConfigError) else []
    if wants_json():
        listed = [dataclasses.asdict(fault) for fault in faults]
        print_json(error_document(error.code, error.message, error.hint, listed))
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    out.print(f"[bold red]error[/] ({error.code}): ", end="")
    out.print(error.message, markup=False)
    for fault in faults:
        if fault.problem not in error.message:
            out.print(f"  - {fault}", markup=False)
    if error.hint:
        out.print(f"  try: {error.hint}", markup=False)


def wants_json() -> bool:
    """Whether this command was called with `--json`, even where its options do not parse."""
    return "--json" in sys.argv[1:]


def error_document(
    code: str, message: str, hint: str = "", faults: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """An error as `--json` prints it."""
    inner = {"code": code, "message": message, "hint": hint, "faults": list(faults)}
    return {"error": inner}
