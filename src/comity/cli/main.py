"""The `comity` command: a click group that imports a command's file only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

import comity
from comity.errors import ComityError

COMMANDS: Final = {
    "ask": "Ask the federation a question and get a cited answer.",
    "audit": "Show or verify what left a site, and who asked for it.",
    "config": "Check, explain or export the federation and site files.",
    "demo": "Four hospitals train one model and answer one question.",
    "ingest": "Make a folder of documents searchable at a site.",
    "journal": "Restore a site's journal after a loss, on the record.",
    "ledger": "Show or verify a site's privacy budget; free unused plans.",
    "new": "Write a small app that runs at once.",
    "secagg": "Say what a secure sum promises and costs.",
    "run": "Run a Flower app on this machine.",
}
"""Every command with its one-line help; the file `cli/NAME.py` holds it as `command`."""


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for a name that does not exist."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"comity.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table, so that `--help` imports none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(comity.__version__, prog_name="comity")
def group() -> None:
    """Train one model and answer one question together; each one's data stays at home.

    \b
    Example:
      comity demo
    """  # noqa: D301 - click reads \b as "keep these lines"


def main() -> None:
    """Runs the command line; turns every `ComityError` into one message and its exit code."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        from comity.cli.terminal import degrade_gracefully  # noqa: PLC0415 - few pay for it

        degrade_gracefully()
    try:
        group.main(prog_name="comity", standalone_mode=False)
    except ComityError as error:
        from comity.cli.terminal import print_error  # noqa: PLC0415 - only a failure pays for rich

        print_error(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        from comity.cli.terminal import (  # noqa: PLC0415 - likewise
            error_document,
            print_json,
            wants_json,
        )

        if wants_json():
            print_json(error_document("usage", error.format_message()))
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
