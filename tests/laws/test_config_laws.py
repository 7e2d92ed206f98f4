"""Whatever stands in a configuration file: a model, or a `ConfigError` that names every fault."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity.config.faults import CrossCheck, ModelT, checked
from comity.config.federation import FederationFile, federation_faults, load_federation_file
from comity.config.places import faults_between_fields
from comity.config.site import SiteFile, load_site_file
from comity.errors import ConfigError

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# text of a table or key, and the paths of the faults that it alone brings
FRAGMENTS = [
    ("colour = 1", {"colour"}),
    ("state = 3", {"state"}),
    ("train.max-reply-bytes = 0", {"train.max-reply-bytes"}),
    ("train.site-noise = {clip-norm = -1}", {"train.site-noise.clip-norm"}),
    ('train.rules.trian = {arrays = "plain"}', {"train.rules.trian"}),
    ('train.trusted-trainers = ["x", 1]', {"train.trusted-trainers.0", "train.trusted-trainers.1"}),
    ('datasets.none = {path = "none.csv", records = 1.5}', {"datasets.none.records"}),
    (
        'datasets.one = {path = "a.csv"}\ndatasets.two = {path = "a.csv"}',
        {"datasets.two.path"},
    ),
    (
        'datasets.few = {path = "b.csv", records = 9}\nbudgets.few = {epsilon = 1, delta = 0.2}',
        {"budgets.few.delta"},
    ),
    ("budgets.lost = {epsilon = 1, delta = 0.1}", {"budgets.lost"}),
    ("collections.c = {release = 1}", {"collections.c.folder", "collections.c.release"}),
    ("limits = []", {"limits"}),
]


@SAME_FOLDER
@given(chosen=st.sets(st.sampled_from(range(len(FRAGMENTS))), min_size=1))
def test_any_combination_of_faults_is_reported_at_once(tmp_path: Path, chosen: set[int]) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n")
    lines = ['name = "a"', *(FRAGMENTS[number][0] for number in sorted(chosen))]
    file = tmp_path / "site.toml"
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_site_file(file)
    found = {fault.path for fault in caught.value.faults}
    assert found >= set().union(*(FRAGMENTS[number][1] for number in chosen))
    assert all(fault.problem for fault in caught.value.faults)


def names_in(model: Any) -> list[str]:
    tables = [model.model_json_schema(), *model.model_json_schema()["$defs"].values()]
    return sorted({key for table in tables for key in table.get("properties", {})})


SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 0, 1]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["a", "csv", "plain", "sum", "*", ".", "/", "state", "x" * 5000, "\0", "nan"]),
    st.dates(),
    st.times(),
    st.just(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
)


def documents(model: Any) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.one_of(st.sampled_from([*names_in(model), "train", "query.x", "a"]), st.text('a.-é"'))
    values = st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)
        ),
        max_leaves=25,
    )
    return st.dictionaries(keys, values, max_size=6)


def model_or_faults(
    model: type[ModelT], document: dict[str, Any], file: Path, cross_check: CrossCheck
) -> ModelT | None:
    try:
        return checked(model, document, file, cross_check)
    except ConfigError as error:
        faults = error.faults
    assert faults
    assert all(fault.path and fault.problem for fault in faults)
    assert all(len(str(fault)) < 20_000 for fault in faults)
    return None


@SAME_FOLDER
@given(document=documents(SiteFile))
def test_any_site_document_is_a_model_or_a_list_of_faults(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    site = model_or_faults(SiteFile, document, tmp_path / "s.toml", faults_between_fields)
    if site is not None:
        assert all(math.isfinite(budget.epsilon) for budget in site.policy().budgets.values())


@SAME_FOLDER
@given(document=documents(FederationFile))
def test_any_federation_document_is_a_model_or_a_list_of_faults(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    found = model_or_faults(FederationFile, document, tmp_path / "f.toml", federation_faults)
    if found is not None:
        assert len({site.name for site in found.sites}) == len(found.sites)


@SAME_FOLDER
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_model_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.toml"
    file.write_bytes(content)
    for load in (load_site_file, load_federation_file):
        with pytest.raises(ConfigError) as caught:
            load(file)
        assert str(file) in str(caught.value)
