"""What happened, one frozen type per fact. Events carry ids and figures, never content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from comity.ids import DatasetName, ExchangeId, ReservationId, RunId, SiteName


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a federation; the sealed parent of all others in this module."""


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A training run began."""

    run: RunId
    sites: tuple[SiteName, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class RoundFinished(Event):
    """A round was aggregated. `round_number` counts from 1; `seconds` is wall time."""

    run: RunId
    round_number: int
    rounds: int
    replies: int
    dropouts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ExchangeFinished(Event):
    """A coordinator's messages of one type were answered, or time ran out.

    `number` counts the exchanges of the run from 1; `dropouts` are the sites without a usable
    reply; `seconds` is wall time.
    """

    run: RunId
    number: int
    message_type: str
    asked: int
    dropouts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SumOpened(Event):
    """A secure sum was opened: the coordinator learned it, and no single contribution.

    `sites` are in it, `dropped` of the cohort are not; `attempts` counts those of its round;
    `capped` weights were cut to the largest that the plan allowed.
    """

    run: RunId
    round_number: int
    message_type: str
    sites: int
    dropped: int
    attempts: int
    capped: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptVoid(Event):
    """An attempt of a secure sum gave nothing; `sites` are named for it, `cause` says why."""

    run: RunId
    round_number: int
    attempt: int
    cause: str
    sites: tuple[SiteName, ...]


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """A run ended, with the total wall time in seconds."""

    run: RunId
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SiteDropped(Event):
    """A site gave no usable contribution in an exchange; `error` is an error's class name only."""

    run: RunId
    site: SiteName
    exchange: ExchangeId
    error: str


@dataclass(frozen=True, slots=True)
class JournalStarted(Event):
    """A site had no journal and began one: the budgets of `datasets` stand whole."""

    site: SiteName
    datasets: tuple[DatasetName, ...]

    def __str__(self) -> str:
        return (
            f"{self.site}: began a fresh journal, so the whole budget of "
            f"{', '.join(self.datasets)} is there to be spent; if there was a journal before, put "
            "it back"
        )


@dataclass(frozen=True, slots=True)
class PlanReserved(Event):
    """A site reserved a privacy plan; the figures are what the accountant says of it."""

    site: SiteName
    dataset: DatasetName
    reservation: ReservationId
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True)
class ExchangeCommitted(Event):
    """A gate committed the releases of one exchange to its journal."""

    site: SiteName
    exchange: ExchangeId
    released: int
    withheld: int
    size_bytes: int
    journal_sequence: int


@dataclass(frozen=True, slots=True)
class DocumentsIngested(Event):
    """A site's index took in documents."""

    site: SiteName
    collection: str
    added: int
    replaced: int
    removed: int
    passages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QuestionAnswered(Event):
    """A question went through both exchanges."""

    exchange: ExchangeId
    sites_asked: int
    sites_silent: int
    candidates: int
    citations: int
    abstained: bool
    seconds: float = field(default=0.0)


EventSink = Callable[[Event], None]
_BY_LISTENER: Final = "raised by a listener to Comity's events"


class _Marking:
    """Marks what is raised within."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(_BY_LISTENER)


def marked(sink: EventSink) -> EventSink:
    """The same sink; what it raises is marked, so that nobody takes it for an app's error."""

    def tell(event: Event) -> None:
        with _Marking():
            sink(event)

    return tell


def raised_by_listener(error: BaseException) -> bool:
    """Whether a sink that `marked` gave raised it."""
    return _BY_LISTENER in getattr(error, "__notes__", ())


def ignore(event: Event) -> None:
    """The sink for callers that do not listen."""
    del event
