"""The federation file: who takes part, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict

from comity.config.faults import MAX_SHOWN, counted, dotted, load, shown
from comity.config.section import FilePath, Name, Section, nested
from comity.config.site import SiteFile, TableSchema, load_site_file
from comity.errors import ConfigError, Fault


class MemberSection(Section):
    """`[[sites]]`: one site of the federation."""

    name: Name = Field(description="The site's name: a DNS label, unique in the federation.")
    role: Name = Field(
        default="site", description="The role that collections may name among their askers."
    )
    file: FilePath | None = Field(
        default=None,
        description="Its site file, where the site runs on this machine (engine `local`).",
    )


class TrainDefaults(Section):
    """`[train]`: what a run takes where it does not say otherwise."""

    rounds: int = Field(default=10, ge=1, le=10**6, description="Rounds of a run.")
    min_sites: int = Field(
        default=2, ge=1, le=10**6, description="The fewest sites that a round goes on with."
    )
    round_timeout_s: float = Field(
        default=600.0, gt=0, le=604800, description="Seconds until a round is cut off."
    )


class AskSection(Section):
    """`[ask]`: limits of a question."""

    timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="Seconds until a site's reply counts as missing."
    )
    max_question_characters: int = Field(
        default=2000, ge=1, le=10**6, description="The longest question."
    )
    max_passages: int = Field(
        default=6, ge=1, le=1000, description="The most passages that an answer draws on."
    )


class FederationFile(Section):
    """A federation file, `federation.toml`: its members and what holds for all of them."""

    name: Name = Field(description="The federation's name: a DNS label.")
    coordinator: Name = Field(
        default="coordinator", description="The coordinator's name: a DNS label."
    )
    sites: Annotated[tuple[MemberSection, ...], Strict(strict=False)] = Field(
        min_length=1, description="The sites, one `[[sites]]` table each."
    )
    train: TrainDefaults = Field(
        default_factory=TrainDefaults, description="What a run takes by default."
    )
    ask: AskSection = Field(default_factory=AskSection, description="Limits of a question.")

    def load_site_files(self) -> tuple[SiteFile, ...]:
        """The site files of all members that have one here, in the file's order.

        Raises:
            ConfigError: With all faults of all of them at once.
        """
        found: list[SiteFile] = []
        faults: list[Fault] = []
        for number, member in enumerate(self.sites):
            if member.file is None:
                continue
            try:
                site = load_site_file(member.file)
            except ConfigError as error:
                faults += error.faults or [Fault(f"sites.{number}.file", error.message, error.hint)]
                continue
            if site.name != member.name:
                problem = f"is {site.name!r}, and the federation calls this site {member.name!r}"
                faults.append(Fault("name", problem, "write one name in both", str(member.file)))
            found.append(site)
        faults += _shared_state(found)
        faults += self._schema_faults(found)
        if faults:
            raise ConfigError(
                f"the site files of {self.name} have {counted(len(faults), 'fault')}",
                faults=faults,
            )
        return tuple(found)

    def _schema_faults(self, sites: list[SiteFile]) -> Iterator[Fault]:
        """One data set name means one schema, whichever site holds it."""
        files = {member.name: str(member.file) for member in self.sites}
        first: dict[str, tuple[str, TableSchema]] = {}
        for site in sites:
            for name, dataset in site.datasets.items():
                if dataset.table_schema is None:
                    continue
                owner, agreed = first.setdefault(name, (site.name, dataset.table_schema))
                for key in ("features", "label", "classes"):
                    ours, theirs = getattr(dataset.table_schema, key), getattr(agreed, key)
                    if ours != theirs:
                        yield Fault(
                            dotted(("datasets", name, "schema", key)),
                            f"is {_listed(ours)}, and at site {owner} it is {_listed(theirs)}",
                            "agree on one schema, in one order, for data sets of one name",
                            files.get(site.name, ""),
                        )


def _listed(value: str | tuple[str, ...]) -> str:
    text = value if isinstance(value, str) else ", ".join(value) or "empty"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def load_federation_file(file: Path) -> FederationFile:
    """Reads and checks a federation file; relative paths in it start from its folder.

    The site files that it names must exist; `FederationFile.load_site_files` reads them.

    Raises:
        ConfigError: With all faults at once, each with file, dotted path, problem and way out.
    """
    return load(FederationFile, file, federation_faults)


def _shared_state(sites: list[SiteFile]) -> Iterator[Fault]:
    owners: dict[Path, str] = {}
    for site in sites:
        place = site.state.resolve()
        if place in owners:
            problem = f"is {place}, which is also the state of {owners[place]}"
            yield Fault(f"{site.name}: state", problem, "give each site a state folder of its own")
        owners.setdefault(place, site.name)


def federation_faults(document: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Each fault of a federation file that no single field shows: names twice, too few sites."""
    sites = document.get("sites")
    tables = sites if isinstance(sites, list) else []
    first: dict[str, int] = {}
    for number, table in enumerate(tables):
        name = nested(table).get("name")
        if not isinstance(name, str):
            continue
        path = dotted(("sites", number, "name"))
        if name in first:
            problem = f"{name!r} is also the name of sites.{first[name]}"
            yield Fault(path, problem, "give each site a name of its own", str(file))
        if name == document.get("coordinator", "coordinator"):
            problem = f"{name!r} is also the coordinator's name"
            yield Fault(path, problem, "give each member a name of its own", str(file))
        first.setdefault(name, number)
    needed = nested(document, "train").get("min-sites")
    if isinstance(needed, int) and tables and needed > len(tables):
        problem = f"is {shown(needed)}, and the federation has {counted(len(tables), 'site')}"
        yield Fault("train.min-sites", problem, f"write at most {len(tables)}", str(file))
