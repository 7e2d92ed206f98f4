"""What a file allows, in plain sentences; each protection that is switched off stands out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from comity.config.faults import counted, dotted
from comity.config.federation import FederationFile
from comity.config.site import BudgetSection, CollectionSection, DatasetSection, SiteFile
from comity.core.policy.rule import PartKind, ReleaseLevel, Rule, TrainPolicy

USUAL_EPSILON = 10.0
"""Above it an epsilon promises a single record next to nothing."""

_PARTS = {
    PartKind.ARRAYS: "model arrays",
    PartKind.METRICS: "scalar metrics",
    PartKind.CONFIG: "configuration records and lists",
    PartKind.ERROR: "error texts",
}
_RELEASES = {
    ReleaseLevel.NOTHING: "nothing leaves",
    ReleaseLevel.COUNTS: "only counts leave",
    ReleaseLevel.ANSWER_ONLY: "only a drafted answer leaves, no text of a document",
    ReleaseLevel.SENTENCES: "single sentences leave",
    ReleaseLevel.PASSAGES: "whole passages leave",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence about one field.

    Attributes:
        path: Dotted path of the field.
        text: What it means.
        written: It stands in the file; otherwise it is the default.
        open: A protection is switched off, or weaker than usual.
    """

    path: str
    text: str
    written: bool
    open: bool = False


def explain_federation(federation: FederationFile) -> Iterator[Statement]:
    """Says who takes part, and what holds for a run and a question by default."""
    written = _written(federation)
    yield Statement("name", f"This federation is called {federation.name}.", written=True)
    yield Statement(
        "coordinator",
        f"Its coordinator is {federation.coordinator}.",
        written="coordinator" in written,
    )
    for number, site in enumerate(federation.sites):
        where = f"runs here by {site.file}" if site.file else "runs elsewhere"
        text = f"Site {site.name} takes part in the role {site.role} and {where}."
        yield Statement(f"sites.{number}", text, written=True)
    train, ask = federation.train, federation.ask
    given = _written(train)
    yield Statement("train.rounds", f"A run has {train.rounds} rounds.", written="rounds" in given)
    yield Statement(
        "train.min-sites",
        f"A round goes on with at least {counted(train.min_sites, 'site')}.",
        written="min_sites" in given,
        open=train.min_sites == 1,
    )
    text = f"A round is cut off after {train.round_timeout_s:g} s."
    yield Statement("train.round-timeout-s", text, written="round_timeout_s" in given)
    given = _written(ask)
    text = f"A site that is silent for {ask.timeout_s:g} s is left out of an answer."
    yield Statement("ask.timeout-s", text, written="timeout_s" in given)
    text = f"A question has at most {ask.max_question_characters} characters."
    yield Statement("ask.max-question-characters", text, written="max_question_characters" in given)
    text = f"An answer draws on at most {counted(ask.max_passages, 'passage')}."
    yield Statement("ask.max-passages", text, written="max_passages" in given)


def explain_site(site: SiteFile) -> Iterator[Statement]:
    """Says what a site holds and what its owner lets leave."""
    yield Statement("name", f"This site is called {site.name}.", written=True)
    text = f"Its journal, keys and index lie in {site.state}."
    yield Statement("state", text, written="state" in _written(site))
    if not site.datasets:
        yield Statement("datasets", "It holds no data set, so nothing trains here.", written=False)
    for name, dataset in site.datasets.items():
        yield from _dataset(name, dataset, site.budgets.get(name))
    yield from _train(site)
    if not site.collections:
        text = "It opens no collection, so no question is answered from here."
        yield Statement("collections", text, written=False)
    for name, collection in site.collections.items():
        yield from _collection(name, collection)
    given = _written(site.limits)
    limits = {
        "max_document_bytes": "A document of more than {} bytes is refused.",
        "max_documents": "A collection of more than {} documents is refused.",
        "max_line_bytes": "A file with a line of more than {} bytes is refused.",
        "max_table_rows": "A table of more than {} records is refused.",
    }
    for field, value in site.limits:
        path = f"limits.{field.replace('_', '-')}"
        yield Statement(path, limits[field].format(value), written=field in given)


def _written(section: BaseModel) -> set[str]:
    return section.model_fields_set


def _dataset(
    name: str, dataset: DatasetSection, budget: BudgetSection | None
) -> Iterator[Statement]:
    text = f"Data set {name} is the {dataset.format} {dataset.path}, one {dataset.unit} a line."
    yield Statement(dotted(("datasets", name)), text, written=True)
    if dataset.mock:
        text = f"Anybody may see the made-up records in {dataset.mock}."
        yield Statement(dotted(("datasets", name, "mock")), text, written=True)
    path = dotted(("budgets", name))
    if budget is None:
        text = f"Data set {name} has no privacy budget: nothing private is released from it."
        yield Statement(path, text, written=False)
        return
    text = (
        f"All releases from {name} together stay within epsilon {budget.epsilon:g} at delta "
        f"{budget.delta:g} for one {budget.unit}; then the site refuses."
    )
    weak = budget.epsilon > USUAL_EPSILON
    if weak:
        text += f" Above {USUAL_EPSILON:g} this promises next to nothing."
    yield Statement(path, text, written=True, open=weak)
    text = (
        f"A plan chosen after outputs enters by the Renyi filter at order {budget.value().order:g}."
    )
    yield Statement(f"{path}.filter-order", text, written=budget.filter_order is not None)


def _train(site: SiteFile) -> Iterator[Statement]:
    policy = site.train.policy()
    for message_type in dict.fromkeys(("train", "evaluate", "query", *site.train.rules)):
        written = {
            kind
            for named, kind in policy.rules
            if named in {message_type, message_type.split(".")[0]}
        }
        for kind, what in _PARTS.items():
            rule = policy.rule_for(message_type, kind)
            path = dotted(("train", "rules", message_type, str(kind)))
            text = f"On {message_type}, {what} {_fate(rule, kind, policy)}."
            bare = rule is Rule.PLAIN and not (kind is PartKind.ARRAYS and policy.site_noise)
            yield Statement(path, text, written=kind in written, open=bare)
    noise = policy.site_noise
    text = "The gate adds no noise of its own to an app's arrays."
    if noise:
        text = (
            f"The gate clips each update to norm {noise.clip_norm:g} and adds noise of "
            f"{noise.noise_multiplier:g} times that."
        )
    yield Statement("train.site-noise", text, written=noise is not None)
    yield _sums(site, policy)
    trusted = sorted(policy.trusted_trainers)
    text = "No trainer is trusted, so no record-level privacy claim is believed."
    if trusted:
        text = f"The record-level privacy claim of {', '.join(trusted)} is believed."
    yield Statement("train.trusted-trainers", text, written=bool(trusted))
    given = _written(site.train)
    bare = policy.unclaimed is Rule.PLAIN
    text = "Arrays of a data set with a budget leave only under a privacy claim that spends of it."
    if bare:
        text = (
            "Arrays leave without a privacy claim also from a data set with a budget: its ledger "
        )
        text += "does not count them."
    yield Statement("train.unclaimed", text, written="unclaimed" in given, open=bare)
    text = f"A reply of more than {policy.max_reply_bytes} bytes is refused."
    yield Statement("train.max-reply-bytes", text, written="max_reply_bytes" in given)
    text = f"A reply of more than {counted(policy.max_metrics, 'scalar metric')} is refused."
    yield Statement("train.max-metrics", text, written="max_metrics" in given)


def _sums(site: SiteFile, policy: TrainPolicy) -> Statement:
    sums = policy.sums
    colluders = "a quarter of the others" if sums.max_colluders is None else sums.max_colluders
    honest = "2 (3 above six sites)" if sums.min_honest is None else sums.min_honest
    text = (
        f"It sums among {sums.min_cohort} sites or more, of which {colluders} may collude with the "
        f"coordinator; whatever is learned is a sum over at least {honest} honest ones."
    )
    return Statement("train.secure-sums", text, written="secure_sums" in _written(site.train))


def _fate(rule: Rule, kind: PartKind, policy: TrainPolicy) -> str:
    if rule is Rule.WITHHOLD:
        return "stay here"
    if rule is Rule.SUM:
        return "leave only inside a secure sum"
    if kind is PartKind.ARRAYS and policy.site_noise:
        return "leave clipped and noised by the gate, readable by the coordinator"
    return "leave as they are, readable by the coordinator"


def _collection(name: str, collection: CollectionSection) -> Iterator[Statement]:
    path = dotted(("collections", name))
    closed = collection.release is ReleaseLevel.NOTHING or not collection.askers
    everybody = "*" in collection.askers
    askers = "every member" if everybody else ", ".join(sorted(collection.askers)) or "nobody"
    text = f"Collection {name} ({collection.folder}) is open to {askers}: "
    text += "nothing leaves" if closed else _RELEASES[collection.release]
    text += f". The asker reads: {collection.reason}" if collection.reason else "."
    given = _written(collection)
    yield Statement(path, text, written=True, open=everybody and not closed)
    if closed:
        return
    text = (
        f"From {name}, one question draws at most {collection.max_passages_per_question} "
        f"passages, one asker {collection.max_passages_per_day} a day."
    )
    quotas = {"max_passages_per_question", "max_passages_per_day"}
    yield Statement(f"{path}.max-passages-per-day", text, written=bool(quotas & given))
