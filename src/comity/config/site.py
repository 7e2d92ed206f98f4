"""The site file: what one site holds, and what its owner lets leave. Deny by default."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, Field, Strict, StringConstraints

from comity.config.faults import did_you_mean, load
from comity.config.places import DEFAULT_STATE, faults_between_fields
from comity.config.section import (
    FolderPath,
    FutureFolderPath,
    Name,
    Section,
    SourcePath,
    wrong,
)
from comity.config.sums import SecureSumsSection
from comity.core.policy.rule import (
    Budget,
    CollectionPolicy,
    PartKind,
    ReleaseLevel,
    Rule,
    SiteNoise,
    SitePolicy,
    TrainPolicy,
    Unit,
    category_of,
)
from comity.ids import AppDigest, CollectionName, DatasetName

MESSAGE_CATEGORIES: Final = ("train", "evaluate", "query")


class DatasetFormat(StrEnum):
    """How a data set lies on disk."""

    CSV = "csv"
    """One file: a header line, then one record a line."""
    FOLDER = "folder"
    """A folder that the app itself understands, such as images; where it has a schema, every
    `.csv` file in it is a table of that schema."""


def _message_type(text: str) -> str:
    if category_of(text) not in MESSAGE_CATEGORIES:
        raise wrong("is not a message type", did_you_mean(text, MESSAGE_CATEGORIES))
    return text


_NO_TABLES: Final = MappingProxyType[str, Any]({})

MessageType = Annotated[str, AfterValidator(_message_type)]
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
FrozenTable = Annotated[Mapping[KeyT, ValueT], AfterValidator(MappingProxyType)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class TableSchema(Section):
    """`[datasets.NAME.schema]`: the columns that the federation agreed on, in its order."""

    features: Annotated[tuple[Text, ...], Strict(strict=False)] = Field(
        default=(), description="Names of the feature columns, in order; empty takes all others."
    )
    label: Text = Field(description="Name of the label column.")
    classes: Annotated[tuple[Text, ...], Strict(strict=False)] = Field(
        default=(),
        description="All values of the label, in order, also those that this site never saw.",
    )


class DatasetSection(Section):
    """`[datasets.NAME]`: one source of records under the name that the ledger knows it by."""

    path: SourcePath = Field(description="The file or folder, relative to this file.")
    format: Annotated[DatasetFormat, Strict(strict=False)] = Field(
        default=DatasetFormat.CSV, description="`csv` (one file with a header line) or `folder`."
    )
    unit: Annotated[Unit, Strict(strict=False)] = Field(
        default=Unit.RECORD, description="What one line of it stands for: `record` or `person`."
    )
    records: int | None = Field(
        default=None,
        ge=1,
        description="How many records it holds at most; delta must be below one over it. Needed "
        "where it has a budget.",
    )
    mock: SourcePath | None = Field(
        default=None, description="Made-up data of the same schema that anybody may see."
    )
    table_schema: TableSchema | None = Field(
        default=None,
        alias="schema",
        description="The columns that the federation agreed on; in a folder, "
        "those of every `.csv` file in it.",
    )


class BudgetSection(Section):
    """`[budgets.DATASET]`: the privacy that a data set may lose in all, over its whole life."""

    epsilon: float = Field(gt=0, le=1000, description="Total epsilon over all runs; 10 is a lot.")
    delta: float = Field(gt=0, lt=1, description="Total delta; below one over the records.")
    unit: Annotated[Unit, Strict(strict=False)] = Field(
        default=Unit.RECORD, description="What is protected: `record`, `person` or `site`."
    )
    filter_order: float | None = Field(
        default=None,
        gt=1,
        le=1024,
        description="Renyi order of the filter for plans chosen after outputs; left out, the "
        "smallest whole one whose conversion costs at most half of epsilon.",
    )

    def value(self) -> Budget:
        """The value that the ledger decides by."""
        return Budget(self.epsilon, self.delta, unit=self.unit, filter_order=self.filter_order)


class SiteNoiseSection(Section):
    """`[train.site-noise]`: the gate clips and noises each whole contribution itself."""

    clip_norm: float = Field(ge=1e-100, le=1e100, description="Bound on the L2 norm of an update.")
    noise_multiplier: float = Field(
        ge=0.01, le=1e6, description="Noise deviation over the clip norm."
    )


class PartRules(Section):
    """`[train.rules.MESSAGE-TYPE]`: what becomes of each part of an app's reply."""

    arrays: Annotated[Rule, Strict(strict=False)] | None = Field(
        default=None, description="Model arrays: `sum`, `plain` or `withhold`."
    )
    metrics: Annotated[Rule, Strict(strict=False)] | None = Field(
        default=None, description="Scalar metrics: `sum`, `plain` or `withhold`."
    )
    config: Annotated[Rule, Strict(strict=False)] | None = Field(
        default=None, description="Configuration records and lists: `plain` or `withhold`."
    )
    error: Annotated[Rule, Strict(strict=False)] | None = Field(
        default=None, description="Error texts, which may quote records: `plain` or `withhold`."
    )


def _unclaimed(rule: Rule) -> Rule:
    if rule is Rule.SUM:
        raise wrong("is `sum`", "write withhold or plain")
    return rule


class TrainSection(Section):
    """`[train]`: what training apps may release."""

    rules: FrozenTable[MessageType, PartRules] = Field(
        default_factory=lambda: _NO_TABLES,
        description="Rules by message type: `train`, `evaluate`, `query` or `query.NAME`.",
    )
    trusted_trainers: Annotated[frozenset[Digest], Strict(strict=False)] = Field(
        default=frozenset(),
        description="Trainers whose record-level claim is believed: `sha256:` and 64 digits.",
    )
    site_noise: SiteNoiseSection | None = Field(
        default=None, description="Clip and noise by the gate itself, for any app."
    )
    secure_sums: SecureSumsSection = Field(
        default_factory=SecureSumsSection, description="What this site demands of a secure sum."
    )
    unclaimed: Annotated[Rule, Strict(strict=False), AfterValidator(_unclaimed)] = Field(
        default=Rule.WITHHOLD,
        description="Arrays without a privacy claim from a data set with a budget: `withhold` or "
        "`plain`, beside the budget.",
    )
    max_reply_bytes: int = Field(
        default=2**31, ge=1, le=2**40, description="The most bytes of one reply."
    )
    max_metrics: int = Field(
        default=64, ge=1, le=10**4, description="The most scalar metrics of one reply."
    )

    def policy(self) -> TrainPolicy:
        """The value that the gate decides by."""
        rules = {
            (message_type, PartKind(part)): rule
            for message_type, parts in self.rules.items()
            for part, rule in parts
            if rule is not None
        }
        noise = self.site_noise
        return TrainPolicy(
            rules=MappingProxyType(rules),
            trusted_trainers=frozenset(map(AppDigest, self.trusted_trainers)),
            site_noise=SiteNoise(noise.clip_norm, noise.noise_multiplier) if noise else None,
            sums=self.secure_sums.policy(),
            unclaimed=self.unclaimed,
            max_reply_bytes=self.max_reply_bytes,
            max_metrics=self.max_metrics,
        )


class CollectionSection(Section):
    """`[collections.NAME]`: a folder of documents, who may ask, and how much they see."""

    folder: FolderPath = Field(description="The folder of documents, relative to this file.")
    release: Annotated[ReleaseLevel, Strict(strict=False)] = Field(
        default=ReleaseLevel.NOTHING,
        description="The most that leaves: `nothing`, `counts`, `answer_only`, `sentences` or "
        "`passages`.",
    )
    askers: Annotated[frozenset[Text], Strict(strict=False)] = Field(
        default=frozenset(), description='Members or roles that may ask; `"*"` is every member.'
    )
    max_passages_per_question: int = Field(
        default=8, ge=1, le=1000, description="The most passages for one question."
    )
    max_passages_per_day: int = Field(
        default=500, ge=1, le=10**6, description="The most passages for one asker in a day."
    )
    max_sentences_per_passage: int = Field(
        default=3, ge=1, le=1000, description="The most sentences of a passage at `sentences`."
    )
    reason: str = Field(
        default="", description="Why it is closed: one sentence that the asker may read."
    )


class SiteLimits(Section):
    """`[limits]`: how much a site takes in."""

    max_document_bytes: int = Field(
        default=32 * 2**20, ge=1, le=2**40, description="The most bytes of one document."
    )
    max_documents: int = Field(
        default=10**6, ge=1, le=10**9, description="The most documents of one collection."
    )
    max_line_bytes: int = Field(
        default=2**20, ge=64, le=2**30, description="The most bytes of one line of a file."
    )
    max_table_rows: int = Field(
        default=10**7, ge=1, le=10**12, description="The most records of one table."
    )


class SiteFile(Section):
    """A site file, `site.toml`: one site's state, data, budgets, rules and collections."""

    name: Name = Field(description="The site's name: a DNS label, unique in the federation.")
    state: FutureFolderPath = Field(
        default=Path(DEFAULT_STATE),
        validate_default=True,
        description="The folder of journal, keys and index; made when it is missing.",
    )
    datasets: FrozenTable[Name, DatasetSection] = Field(
        default_factory=lambda: _NO_TABLES, description="Data sets by name."
    )
    budgets: FrozenTable[Name, BudgetSection] = Field(
        default_factory=lambda: _NO_TABLES,
        description="Privacy budgets by data set; without one nothing private is released.",
    )
    train: TrainSection = Field(
        default_factory=TrainSection, description="What training apps may release."
    )
    collections: FrozenTable[Name, CollectionSection] = Field(
        default_factory=lambda: _NO_TABLES,
        description="Document collections by name; one that is not named is closed.",
    )
    limits: SiteLimits = Field(
        default_factory=SiteLimits, description="How much the site takes in."
    )

    def policy(self) -> SitePolicy:
        """All that the owner decided, as the gate's value."""
        budgets = {DatasetName(name): budget.value() for name, budget in self.budgets.items()}
        collections = {
            CollectionName(name): CollectionPolicy(
                CollectionName(name),
                release=found.release,
                askers=found.askers,
                max_passages_per_question=found.max_passages_per_question,
                max_passages_per_day=found.max_passages_per_day,
                max_sentences_per_passage=found.max_sentences_per_passage,
                reason=found.reason,
            )
            for name, found in self.collections.items()
        }
        return SitePolicy(
            train=self.train.policy(),
            budgets=MappingProxyType(budgets),
            collections=MappingProxyType(collections),
        )


def load_site_file(file: Path) -> SiteFile:
    """Reads and checks a site file; relative paths in it start from its folder.

    Raises:
        ConfigError: With all faults at once, each with file, dotted path, problem and way out.
    """
    return load(SiteFile, file, faults_between_fields)
