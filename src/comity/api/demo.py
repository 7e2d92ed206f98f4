"""The demonstration: four hospitals train one diagnosis model and answer three questions.

Records (scikit-learn's Wisconsin set, split over the hospitals), Flower app, worker processes,
gates, journals and noise are real. Only the hospitals are made up, and so are their documents.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from comity.adapters.accounting.dp_accountant import DpAccountant
from comity.adapters.store.system import SystemRng
from comity.adapters.train.linear import LinearTrainer
from comity.adapters.train.tables import (
    SiteSplit,
    breast_cancer,
    check_same_schema,
    joined,
    scaled,
    split_skewed,
)
from comity.api.demo_files import (
    DATASET,
    DELTA,
    DemoFiles,
    Whole,
    fresh_folder,
    prepare,
    write_hospitals,
)
from comity.api.federation import Federation
from comity.api.results import TrainResult
from comity.core.privacy.event import Plan
from comity.core.privacy.plan import training_plan
from comity.errors import BudgetExhausted, UnavailableError
from comity.events import EventSink, ignore
from comity.ids import SiteName
from comity.ports import Metrics, Trainer
from comity.services.answer import Answer
from comity.services.train import ComparisonRow, comparison_row, rehearse

HOSPITALS: Final = ("northgate", "lakeside", "riverside", "st-anne")
ASKER: Final = "clinician"
SEEDS: Final = 20
_SHARES: Final = (4.0, 3.0, 2.0, 1.2)
_BENIGN: Final = (0.85, 0.6, 0.4, 0.2)
_HELD_BACK: Final = 0.25
_POOLED_ROUNDS: Final = 90
_AUDIT_LINES: Final = 6

Step = Callable[[str], None]
"""Told what begins now, in words for a person."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What a caller may change.

    Attributes:
        folder: Where the demonstration keeps its runs, each in a folder of its own.
        budget: Each hospital's total epsilon.
        seeds: How many seeds the comparison is over.
    """

    folder: Path
    budget: float = 3.0
    seeds: int = SEEDS


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration showed.

    Attributes:
        files: Where things lie.
        records: Records each hospital trains on and holds back.
        run: The federated run, whose model is kept.
        comparison: Alone, federated and pooled, on the same held-back records.
        answers: The answers to the prepared questions.
        answered_bytes: Bytes that left each hospital in answer to the questions, from its chain.
        ledger: Each hospital's privacy budget, in sentences.
        audit: The last records of each hospital's audit chain, as sentences.
        seeds: How many seeds the comparison is over.
    """

    files: DemoFiles
    records: Mapping[SiteName, tuple[int, int]]
    run: TrainResult
    comparison: tuple[ComparisonRow, ...]
    answers: tuple[Answer, ...]
    answered_bytes: Mapping[SiteName, int]
    ledger: Mapping[SiteName, tuple[str, ...]]
    audit: Mapping[SiteName, tuple[str, ...]]
    seeds: int


def run_demo(settings: DemoSettings, step: Step, events: EventSink = ignore) -> DemoResult:
    """Trains, compares, asks, and keeps model and results in a fresh folder, whole or not at all.

    Raises:
        BudgetExhausted: The budget does not cover the plan; nothing was written.
        UnavailableError: The folder cannot be written; nothing is left in it.
    """
    check_budget(settings.budget)
    folder = fresh_folder(settings.folder)
    with Whole(folder):
        return _run(prepare(folder), settings, step, events)


def _run(files_of: DemoFiles, settings: DemoSettings, step: Step, events: EventSink) -> DemoResult:
    splits = dict(zip(HOSPITALS, _splits(0), strict=True))
    step("Four hospitals prepare their records and documents")
    write_hospitals(files_of, splits, settings.budget)
    with Federation.local(files_of.federation, events) as federation:
        step("Training: each hospital learns from its own records, behind its own gate")
        plan = _plan(app_config(files_of.app))
        run = federation.train(files_of.app, dataset=DATASET, plan=plan, events=events)
        run.save(files_of.model)
        step(f"Comparing with each hospital alone and with pooled records: {settings.seeds} seeds")
        comparison = _compare(files_of.app, run, settings.seeds)
        step("Asking: three questions over the hospitals' private documents")
        answers = tuple(federation.ask(question, asker=ASKER) for question in _questions())
        sites = federation.sites
        audit = {site: federation.audit(site)[-_AUDIT_LINES:] for site in sites}
        answered = {site: federation.left_for_answers(site).size_bytes for site in sites}
        ledger = {site: federation.ledger(site) for site in sites}
    records = {
        SiteName(name): (len(split.train.labels), len(split.held_back.labels))
        for name, split in splits.items()
    }
    return DemoResult(
        files=files_of,
        records=records,
        run=run,
        comparison=comparison,
        answers=answers,
        answered_bytes=answered,
        ledger=ledger,
        audit=audit,
        seeds=settings.seeds,
    )


def check_budget(budget: float) -> None:
    """Checks that each hospital's budget covers the training, before anything is written.

    Raises:
        BudgetExhausted: It does not; names the hospitals and what would fit.
    """
    with as_file(files("comity") / "templates" / "diagnosis") as app:
        plan = _plan(app_config(app))
    needed = DpAccountant().epsilon(plan, DELTA)
    if needed > budget:
        raise BudgetExhausted(
            f"a budget of epsilon {budget:g} does not cover this training at "
            f"{', '.join(HOSPITALS)}: it costs {needed:.2f} at each, at delta {DELTA:g}",
            hint=f"--budget {math.ceil(needed * 10) / 10:g} or more",
        )


def _splits(seed: int) -> tuple[SiteSplit, ...]:
    splits = split_skewed(
        breast_cancer(), shares=_SHARES, class_one=_BENIGN, held_back=_HELD_BACK, seed=seed
    )
    tables = [part for split in splits for part in (split.train, split.held_back)]
    check_same_schema({SiteName(str(number)): table for number, table in enumerate(tables)})
    return splits


def _plan(config: Mapping[str, Any]) -> Plan:
    return training_plan(
        rounds=config["rounds"],
        steps_per_round=config["steps-per-round"],
        sampling_rate=config["sampling-rate"],
        noise_multiplier=config["noise-multiplier"],
    )


def app_config(app: Path) -> dict[str, Any]:
    """The run configuration in an app's ``pyproject.toml``."""
    project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    config: dict[str, Any] = project["tool"]["flwr"]["app"]["config"]
    return config


def planned_rounds() -> int:
    """How many rounds the demonstration trains."""
    with as_file(files("comity") / "templates" / "diagnosis") as app:
        return int(app_config(app)["rounds"])


def _compare(app: Path, run: TrainResult, seeds: int) -> tuple[ComparisonRow, ...]:
    """Trains alone and pooled for each seed; the first seed's federated row is the real run.

    All of this happens outside the federation, with records that a real coordinator never has.
    """
    module, config = _app_module(app), app_config(app)
    private: Trainer = module.trainer(SimpleNamespace(run_config=config))
    plain = LinearTrainer(len(module.HIGH), learning_rate=float(config["learning-rate"]))
    scores: dict[str, list[Metrics]] = {name: [] for name in (*HOSPITALS, "federated", "pooled")}
    for seed in range(seeds):
        splits = [
            SiteSplit(*(scaled(table, 0 * module.HIGH, module.HIGH) for table in parts))
            for parts in ((split.train, split.held_back) for split in _splits(seed))
        ]
        test = joined([split.held_back for split in splits])
        for name, arrays in _rehearsals(private, plain, splits, config["rounds"]):
            kept = run.arrays if name == "federated" and seed == 0 else arrays
            scores[name].append(private.evaluate(kept, test))
    epsilon = max(site.budget.epsilon_spent for site in run.sites if site.budget)
    return tuple(
        comparison_row(name, None if name == "pooled" else epsilon, found)
        for name, found in scores.items()
    )


def _rehearsals(
    private: Trainer, plain: Trainer, splits: Sequence[SiteSplit], rounds: int
) -> Iterator[tuple[str, Any]]:
    rng = SystemRng()
    tables = [split.train for split in splits]
    for name, table in zip(HOSPITALS, tables, strict=True):
        yield name, rehearse(private, [table], rounds, rng)
    yield "federated", rehearse(private, tables, rounds, rng)
    yield "pooled", rehearse(plain, [joined(tables)], _POOLED_ROUNDS, rng)


def _app_module(app: Path) -> ModuleType:
    """The app's own module, so that the comparison trains exactly what the hospitals trained."""
    spec = importlib.util.spec_from_file_location("comity_demo_app", app / "diagnosis" / "app.py")
    if spec is None or spec.loader is None:
        raise UnavailableError(f"{app} was changed while the demonstration ran")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _questions() -> tuple[str, ...]:
    text = (files("comity") / "templates" / "hospitals" / "questions.json").read_text("utf-8")
    return tuple(item["question"] for item in json.loads(text)["questions"])
