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
from comity.core.chain.heads import head_message
from comity.errors import ConfigError, UnavailableError, Verification
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


def damaged_head(folder: Path) -> str:
    """What is wrong with the kept head of a state folder; empty where nothing is.

    Raises:
        ConfigError: There is no identity key.
    """
    layout = state_layout(folder)
    try:
        kept = FileHeadKeeper(layout.head).load()
        if kept is not None:
            keys = load_identity(layout.identity)
            keys.verify(keys.public_key(), head_message(kept.site, kept.head), kept.signature)
    except Verification as error:
        return f"{layout.head}: {error.message}"
    return ""


def set_head_aside(folder: Path) -> None:
    """Moves a damaged head away, so that the journal can be restored without it.

    Raises:
        UnavailableError: The folder cannot be written.
    """
    head = state_layout(folder).head
    try:
        head.replace(head.with_name(head.name + ".damaged"))
    except OSError as error:
        raise UnavailableError(
            f"{head}: {error.strerror}", hint="make the folder writable, then try again"
        ) from error


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
