from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from comity.adapters.train.tables import (
    TableLimits,
    breast_cancer,
    check_same_schema,
    checked,
    joined,
    read_csv,
    scaled,
    split_skewed,
    take,
)
from comity.errors import DataError
from comity.ids import SiteName
from comity.ports import Table

GOOD = "age,size,label\n40,1.5,benign\n50,2.5,malignant\n"


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "records.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_table_is_read_as_it_stands(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "\ufeff" + GOOD), label="label")
    assert table.feature_names == ("age", "size")
    assert table.label_names == ("benign", "malignant")
    assert np.array_equal(table.features, [[40, 1.5], [50, 2.5]])
    assert np.array_equal(table.labels, [0, 1])


def test_the_federation_s_order_of_features_and_labels_decides(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    table = read_csv(
        path, label="label", feature_names=("size", "age"), label_names=("malignant", "benign")
    )
    assert np.array_equal(table.features[0], [1.5, 40])
    assert np.array_equal(table.labels, [1, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no column 'label'"),
        ("age,label\n", "the data set is empty"),
        ("age,size\n1,2\n", "no column 'label' for the label"),
        ("age,label\n1,a,3\n", "line 2: 3 values for 2 columns"),
        ("age,label\nold,a\n", "line 2, column 'age': 'old' is no number"),
        ("age,label\n1,a\nnan,b\n", "line 3, column 'age' is nan"),
        ("age,label\n1,a\ninf,b\n", "line 3, column 'age' is inf"),
        (b"age,label\n1,\xff\n", "line 2, byte 3 is not UTF-8"),
        ("age,label\n" + "1" * 200 + ",a\n", "line 2 is longer than 100 bytes"),
        ("age,label\n" + "1,a\n" * 6, "more than 5 records"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=words) as caught:
        read_csv(path, label="label", limits=TableLimits(max_line_bytes=100, max_rows=5))
    assert str(path) in caught.value.message


def test_a_missing_file_and_a_missing_feature_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_csv(tmp_path / "nowhere.csv", label="label")
    with pytest.raises(DataError, match="no column 'weight'"):
        read_csv(written(tmp_path, GOOD), label="label", feature_names=("weight",))


def test_a_label_that_nobody_agreed_on_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3, column 'label': label 'malignant'"):
        read_csv(written(tmp_path, GOOD), label="label", label_names=("benign",))


def small(names: tuple[str, ...] = ("a", "b"), labels: tuple[int, ...] = (0, 1)) -> Table:
    features = np.zeros((len(labels), len(names)))
    return Table(features, np.array(labels, np.int64), names, ("no", "yes"))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (small(("a", "c")), "site two: feature 'c' stands where site one has 'b'"),
        (small(("a",)), "site two has 1 features, site one 2"),
        (small(labels=(0, 0)), "site two has no record with label 'yes'"),
        (small(labels=()), "site two: the data set is empty"),
    ],
)
def test_sites_that_do_not_speak_of_the_same_are_named(other: Table, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_same_schema({SiteName("one"): small(), SiteName("two"): other})


def test_a_record_with_a_missing_value_is_named() -> None:
    table = small()
    table.features[1, 0] = np.nan
    with pytest.raises(DataError, match="record 2, feature 'a' is nan"):
        checked(table, "site one")


def test_a_split_is_skewed_deterministic_and_gives_each_record_once() -> None:
    table = breast_cancer()
    arguments = {"shares": (4, 2, 1), "class_one": (0.9, 0.5, 0.2), "held_back": 0.25}
    one = split_skewed(table, **arguments, seed=1)  # type: ignore[arg-type]  # by name
    two = split_skewed(table, **arguments, seed=1)  # type: ignore[arg-type]  # by name
    parts = [part for split in one for part in (split.train, split.held_back)]
    again = [part for split in two for part in (split.train, split.held_back)]
    assert all(np.array_equal(a.features, b.features) for a, b in zip(parts, again, strict=True))
    rows = joined(parts).features
    assert len(rows) == len(table.labels)
    assert len(np.unique(rows, axis=0)) == len(np.unique(table.features, axis=0))
    sizes = [len(split.train.labels) for split in one]
    assert sizes == sorted(sizes, reverse=True)
    fractions = [float(split.train.labels.mean()) for split in one]
    assert fractions == sorted(fractions, reverse=True)


def test_too_few_records_for_both_labels_everywhere_are_refused() -> None:
    few = take(breast_cancer(), np.arange(4))
    with pytest.raises(DataError, match="too few records"):
        split_skewed(few, shares=(1, 1), class_one=(0.5, 0.5), held_back=0.5, seed=0)


def test_public_bounds_map_to_minus_one_and_one_and_clip_what_lies_outside() -> None:
    table = Table(np.array([[0.0], [10.0], [99.0]]), np.zeros(3, np.int64), ("a",), ("no",))
    assert np.array_equal(
        scaled(table, np.array([0.0]), np.array([10.0])).features, [[-1.0], [1.0], [1.0]]
    )
