"""Where a site's state lies: one folder, and what stands in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from comity.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The files of one site's state folder.

    Attributes:
        journal: Ledger and audit chain.
        head: The newest signed head; a folder of its own, so that another disk can hold it.
        identity: The site's private identity key.
        roster: The federation's signed roster.
    """

    journal: Path
    head: Path
    identity: Path
    roster: Path


def mirror_of(folder: Path, site: str) -> Path | None:
    """Where a federation's folder keeps the newest head of a site; None where it cannot.

    Outside the site's state folder, so that an old copy of that folder is noticed.
    """
    heads = folder / ".comity" / "heads"
    try:
        heads.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return heads / f"{site}.json" if os.access(heads, os.W_OK) else None


def state_layout(folder: Path, *, create: bool = False) -> StateLayout:
    """The files of the state folder `folder`.

    Args:
        folder: The state folder.
        create: Make the folder and the head's, readable by their owner only.

    Raises:
        UnavailableError: A folder cannot be made.
    """
    layout = StateLayout(
        journal=folder / "journal.db",
        head=folder / "keep" / "head.json",
        identity=folder / "identity.key",
        roster=folder / "roster.json",
    )
    if create:
        for made in (folder, layout.head.parent):
            try:
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise UnavailableError(
                    f"{made}: {error.strerror}", hint="choose a folder that can be written"
                ) from error
    return layout
