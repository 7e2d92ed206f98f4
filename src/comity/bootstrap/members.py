"""Members' folders for secure sums on stock Flower: identity, roster, pinned root key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.adapters.flower.engine import SumParts
from comity.adapters.flower.site_engine import SimulatedSite
from comity.adapters.pki.keys import Identity, load_identity, verify_signature, write_identity
from comity.adapters.pki.throwaway import throwaway_root
from comity.adapters.store.sums import FileSumStore
from comity.adapters.store.system import SystemClock, SystemRng
from comity.bootstrap.sums import COORDINATOR, FEDERATION
from comity.core.policy.rule import PROTECTED, SumPolicy
from comity.core.secagg.site_state import Member
from comity.errors import ConfigError, UnavailableError
from comity.ids import MemberName, SiteName
from comity.services.enrol import Role, Roster, identity_keys, open_roster
from comity.services.gate import UnsafeSimulationGate
from comity.services.sum_epoch import Coordinator
from comity.services.sum_plan import SumSettings
from comity.services.sum_site import SummingSite

_IDENTITY: Final = "identity.key"
_ROSTER: Final = "roster.json"
_ROOT: Final = "root.pub"


def write_members(folder: Path, sites: int) -> list[Path]:
    """Makes a folder for each of `sites` sites and the coordinator, under a throw-away root.

    Returns:
        The folders, the coordinator's last.

    Raises:
        ConfigError: A folder holds an identity key already.
        UnavailableError: A folder cannot be written.
    """
    names = [MemberName(f"site-{number}") for number in range(1, sites + 1)]
    roles = [(name, Role.SITE) for name in names] + [(COORDINATOR, Role.COORDINATOR)]
    root = throwaway_root(FEDERATION, roles, SystemRng(), SystemClock())
    made = []
    for name, _ in roles:
        place = folder / name
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_identity(place / _IDENTITY, root.identities[name])
            (place / _ROSTER).write_bytes(root.roster_file)
            (place / _ROOT).write_text(root.public_key.hex() + "\n", encoding="ascii")
        except OSError as error:
            raise UnavailableError(
                f"{place}: {error.strerror}", hint="choose a folder that can be written"
            ) from error
        made.append(place)
    return made


def summing_member(folder: Path, terms: SumPolicy | None = None) -> SimulatedSite:
    """A site's part in secure sums, by its member folder; its places are kept beside its key.

    Raises:
        ConfigError: The folder is no member's.
        ProtocolError: The roster is not what the pinned root signed.
        RefusedError: The roster has expired.
    """
    kit = _kit(folder)
    member = Member(
        kit.roster.federation,
        folder.name,
        kit.roster.version,
        {str(name): key for name, key in identity_keys(kit.roster, Role.SITE).items()},
        kit.roster.member(COORDINATOR).public_key,
        terms or SumPolicy(),
        kit.identity.sign,
        verify_signature,
    )
    door = UnsafeSimulationGate()
    store = FileSumStore(folder / "sums")
    return SimulatedSite(
        SiteName(folder.name), door, sums=SummingSite(member, door, SystemRng(), store)
    )


def coordinating_member(folder: Path, settings: SumSettings) -> SumParts:
    """The coordinator's part in secure sums; raises as `summing_member` does."""
    kit = _kit(folder)
    return SumParts(
        Coordinator(kit.roster, kit.identity.sign, verify_signature), settings, PROTECTED
    )


@dataclass(frozen=True, slots=True)
class _Kit:
    identity: Identity
    roster: Roster


def _kit(folder: Path) -> _Kit:
    try:
        root = bytes.fromhex((folder / _ROOT).read_text(encoding="ascii").strip())
        body = (folder / _ROSTER).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} is no member's folder: {error}",
            hint="make members' folders with: comity secagg members",
        ) from error
    now_s = SystemClock().wall_s()
    roster = open_roster(body, root, verify_signature, federation=FEDERATION, now_s=now_s)
    roster.member(folder.name)
    return _Kit(load_identity(folder / _IDENTITY), roster)
