"""What every command prints with: a terminal when there is one, plain text when piped, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.console import Console

from comity.errors import ComityError, ConfigError

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH = 100


def json_option(function: F) -> F:
    """Adds `--json` as the argument `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
    )(function)


def console() -> Console:
    """A console on standard output; plain and of fixed width when that is not a terminal."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", PIPED_WIDTH))
    return Console(width=width, highlight=False, soft_wrap=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Writes `document` as one indented JSON object."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_error(error: ComityError) -> None:
    """Says what is wrong, each fault on its line, and what to do about it, on standard error.

    As JSON where the caller asked for `--json`.
    """
    faults = list(error.faults) if isinstance(error, ConfigError) else []
    if "--json" in sys.argv:
        document = {
            "error": error.code,
            "message": error.message,
            "hint": error.hint,
            "docs": error.docs,
            "faults": [str(fault) for fault in faults],
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False), err=True)
        return
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    out.print(f"[bold red]error[/] ({error.code}): ", end="")
    out.print(error.message, markup=False)
    for fault in faults:
        out.print(f"  - {fault}", markup=False)
    if error.hint:
        out.print(f"  try: {error.hint}", markup=False)
