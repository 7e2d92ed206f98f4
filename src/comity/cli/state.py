"""A site's state folder, opened for a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from comity.adapters.pki import load_identity
from comity.adapters.store.heads import FileHeadKeeper
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import state_layout
from comity.adapters.store.system import SystemClock
from comity.errors import ConfigError, Verification
from comity.ids import SiteName
from comity.services.custody import WAY_BACK, Custody, site_of

F = TypeVar("F", bound=Callable[..., Any])

REPLAY_WINDOW: Final = 1
"""A command that only looks needs to remember no exchange."""


def state_option(function: F) -> F:
    """Adds `--state` as the argument `folder`."""
    return click.option(
        "--state",
        "folder",
        required=True,
        type=click.Path(path_type=Path),
        help="The site's state folder, which holds journal.db and identity.key.",
    )(function)


@dataclass(frozen=True, slots=True)
class State:
    """A site's journal in custody, every record verified."""

    site: SiteName
    journal: SqliteJournal
    custody: Custody

    def check_whole(self) -> None:
        """Checks that nothing is missing at the journal's end and no old copy was put back.

        Raises:
            Verification: Something is.
        """
        if self.custody.behind:
            raise Verification(self.custody.behind, hint=WAY_BACK)


@contextmanager
def open_state(folder: Path, *, read_only: bool = True) -> Iterator[State]:
    """Opens and verifies a site's state.

    Raises:
        ConfigError: There is no state folder, journal or identity key.
        Verification: A record or the kept head was altered.
    """
    layout = state_layout(folder)
    if not layout.journal.exists() and not layout.head.exists():
        raise ConfigError(
            f"{folder} holds no site state: there is no journal.db",
            hint="name the folder that the site's report or site file names",
        )
    keys = load_identity(layout.identity)
    heads = FileHeadKeeper(layout.head)
    kept = heads.load()
    if read_only and not layout.journal.exists():
        raise Verification(f"{layout.journal} is gone, yet its head was kept", hint=WAY_BACK)
    journal = SqliteJournal(layout.journal, read_only=read_only)
    try:
        site = (kept.site if kept else site_of(journal)) or SiteName(folder.name)
        clock = SystemClock()
        custody = Custody(site, journal, heads, keys, clock, replay_window=REPLAY_WINDOW)
        yield State(site, journal, custody)
    finally:
        journal.close()
