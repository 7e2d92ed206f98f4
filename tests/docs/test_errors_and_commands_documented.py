"""The reference pages of errors and commands are made from the code; this keeps them current.

To renew both: COMITY_RENEW_DOCS=1 python -m pytest tests/docs
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import click
from click.testing import CliRunner

from comity import errors
from comity.cli.main import COMMANDS, group
from comity.errors import ComityError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
WIDTH = 96


def page_of_errors() -> str:
    lines = [
        "# Errors",
        "",
        "Ordered by who can put it right. Each says on standard error what is wrong and what",
        "to do. With `--json` standard output holds it too: an object `error` with `code` (below;",
        "`usage` for options that do not parse), `message`, `hint` and `faults`.",
    ]
    classes = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, ComityError) and kind is not ComityError
    ]
    for kind in sorted(
        classes, key=lambda kind: (kind.exit_code, kind.__mro__[1] is not ComityError)
    ):
        summary = (inspect.getdoc(kind) or "").split("\n", maxsplit=1)[0]
        figures = f"Code `{kind.code}`, exit {kind.exit_code}, HTTP {kind.http_status}."
        public = f"Across a trust boundary it says only: *{kind.public_default}*."
        lines += ["", f"## {kind.__name__} {{#{kind.code}}}", "", summary, "", figures, public]
    return "\n".join(lines) + "\n"


def commands_below(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    found = [(name, command)]
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            assert below is not None
            found += commands_below(below, f"{name} {child}")
    return found


def help_of(name: str, command: click.Command) -> str:
    # Click keeps the help option of whoever called the command first, which may be another test.
    command._help_option = None
    arguments = [*name.split()[1:], "--help"]
    found = CliRunner().invoke(group, arguments, prog_name="comity", terminal_width=WIDTH)
    assert found.exit_code == 0
    return found.output.rstrip()


def page_of_commands() -> str:
    lines = ["# Commands", "", "What each prints with `--help`."]
    for name, command in commands_below(group, "comity"):
        lines += ["", f"## {name}", "", "```text", help_of(name, command), "```"]
    return "\n".join(lines) + "\n"


def check(file: str, expected: str) -> None:
    path = REFERENCE / file
    if os.environ.get("COMITY_RENEW_DOCS"):
        path.write_text(expected, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == expected, "renew it: see the head of this file"


def test_the_page_of_errors_is_current() -> None:
    check("errors.md", page_of_errors())


def test_the_page_of_commands_is_current() -> None:
    check("cli.md", page_of_commands())


def test_each_error_has_a_code_of_its_own() -> None:
    codes = [
        kind.code
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, ComityError)
    ]
    assert len(codes) == len(set(codes))


def test_each_command_says_what_it_does_with_an_example_that_names_it() -> None:
    for name, command in commands_below(group, "comity"):
        text = help_of(name, command)
        assert "Example:" in text, name
        assert name.split(" ", 2)[0] in text.split("Example:")[1], name


def test_the_table_of_commands_names_each_file_that_holds_one() -> None:
    folder = Path(inspect.getfile(group.__class__)).parent
    holding = {
        path.stem for path in folder.glob("*.py") if "\ndef command(" in path.read_text("utf-8")
    }
    assert holding == set(COMMANDS)
