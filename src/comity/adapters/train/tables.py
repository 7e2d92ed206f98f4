"""Tables of records: reading, checking, and splitting them over simulated sites."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comity.errors import ConfigError, DataError
from comity.ids import SiteName
from comity.ports import Table

MAX_LINE_BYTES: Final = 1 << 20
MAX_ROWS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Bounds on a file that is read as a table.

    Attributes:
        max_line_bytes: The longest line.
        max_rows: The most records.
    """

    max_line_bytes: int = MAX_LINE_BYTES
    max_rows: int = MAX_ROWS


def read_csv(
    path: Path,
    *,
    label: str,
    feature_names: Sequence[str] = (),
    label_names: Sequence[str] = (),
    limits: TableLimits | None = None,
    in_order: bool = False,
) -> Table:
    """Reads a CSV file with a header: one label column, all other columns are features.

    Args:
        path: The file, UTF-8.
        label: Name of the label column.
        feature_names: The features in the federation's order; all other columns when empty.
        label_names: The labels in the federation's order; those found, sorted, when empty.
        limits: Bounds on the file.
        in_order: Refuse a file whose features stand in another order than `feature_names`.

    Raises:
        DataError: The file is missing, empty, not UTF-8, lacks or moved a column, has a
            value that is no finite number or a label nobody agreed on, or exceeds a limit; names
            line and column.
    """
    rows = _rows(path, limits or TableLimits())
    header = next(rows, (0, []))[1]
    if label not in header:
        raise DataError(
            f"{path}: line 1: there is no column {label!r} for the label",
            hint=f"the columns are {', '.join(header[:12]) or 'none'}",
        )
    names = tuple(feature_names) or tuple(name for name in header if name != label)
    _check_columns(path, header, names, in_order=in_order)
    columns = [header.index(name) for name in names]
    at = header.index(label)
    features, labels = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: line {line}: {len(row)} values for {len(header)} columns")
        features.append([_number(path, line, header[column], row[column]) for column in columns])
        labels.append(row[at].strip())
    if not labels:
        raise DataError(f"{path}: the data set is empty", hint="give it at least one record")
    known = tuple(label_names) or tuple(sorted(set(labels)))
    coded = [_code(path, line, label, value, known) for line, value in enumerate(labels, 2)]
    return Table(np.array(features), np.array(coded, dtype=np.int64), names, known)


def breast_cancer() -> Table:
    """The Wisconsin diagnostic breast cancer records that ship with scikit-learn (569 x 30).

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "scikit-learn is not installed", hint="pip install 'comity[sklearn]'"
        ) from error
    bunch = load_breast_cancer()
    return Table(
        np.asarray(bunch.data, dtype=np.float64),
        np.asarray(bunch.target, dtype=np.int64),
        tuple(str(name) for name in bunch.feature_names),
        tuple(str(name) for name in bunch.target_names),
    )


def checked(table: Table, source: str) -> Table:
    """Returns `table` when it can be trained on.

    Raises:
        DataError: It is empty or holds a NaN or an infinity; names `source`, row and feature.
    """
    if not len(table.labels):
        raise DataError(f"{source}: the data set is empty", hint="give it at least one record")
    bad = np.argwhere(~np.isfinite(table.features))
    if len(bad):
        row, column = (int(place) for place in bad[0])
        raise DataError(
            f"{source}: record {row + 1}, feature {table.feature_names[column]!r} is "
            f"{table.features[row, column]}",
            hint="fill in or leave out records with missing values",
        )
    return table


def check_same_schema(tables: Mapping[SiteName, Table]) -> None:
    """Checks that all sites speak of the same features and each has every label.

    Raises:
        DataError: Names the site and the feature or label that differs.
    """
    first_site, first = next(iter(tables.items()))
    for site, table in tables.items():
        checked(table, f"site {site}")
        for ours, theirs in zip(first.feature_names, table.feature_names, strict=False):
            if ours != theirs:
                raise DataError(
                    f"site {site}: feature {theirs!r} stands where site {first_site} has {ours!r}",
                    hint="agree on one list of features, in one order",
                )
        if len(first.feature_names) != len(table.feature_names):
            raise DataError(
                f"site {site} has {len(table.feature_names)} features, site {first_site} "
                f"{len(first.feature_names)}",
                hint="agree on one list of features, in one order",
            )
        _check_same_labels(site, table, first_site, first)


def _check_same_labels(site: SiteName, table: Table, first_site: SiteName, first: Table) -> None:
    for name in (*first.label_names, *table.label_names):
        if name not in table.label_names or not np.any(
            table.labels == table.label_names.index(name)
        ):
            raise DataError(
                f"site {site} has no record with label {name!r}",
                hint="leave the site out of this run, or agree on the labels it has",
            )
        if name not in first.label_names:
            raise DataError(
                f"site {site} has label {name!r}, which site {first_site} does not have",
                hint="agree on one list of labels, in one order",
            )
    if table.label_names != first.label_names:
        raise DataError(
            f"site {site} lists its labels in another order than site {first_site}",
            hint="agree on one list of labels, in one order",
        )


@dataclass(frozen=True, slots=True)
class SiteSplit:
    """One site's records: those it trains on, and those it holds back for testing."""

    train: Table
    held_back: Table


def split_skewed(
    table: Table,
    *,
    shares: Sequence[float],
    class_one: Sequence[float],
    held_back: float,
    seed: int,
) -> tuple[SiteSplit, ...]:
    """Splits a two-class table over sites of different size and different mix of labels.

    Deterministic under `seed`; no record is in two places.

    Args:
        table: All records; labels 0 and 1.
        shares: How large each site is, relative to the others.
        class_one: The fraction of records of class 1 that each site would like.
        held_back: The fraction of each site's records that it holds back, of each label.
        seed: Decides which record goes where.

    Raises:
        DataError: There are too few records of a class to give each site some of both.
    """
    draw = np.random.default_rng(seed)
    weights = np.array(shares) / np.sum(shares)
    wish = np.array(class_one)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for code, liking in ((0, 1 - wish), (1, wish)):
        members = draw.permutation(np.flatnonzero(table.labels == code))
        fractions = weights * liking
        cuts = np.cumsum(fractions / fractions.sum())[:-1] * len(members)
        for part, chosen in zip(parts, np.split(members, cuts.astype(int)), strict=True):
            part.append(chosen)
    return tuple(_site_split(table, part, held_back) for part in parts)


def take(table: Table, rows: NDArray[np.int64]) -> Table:
    """Some of a table's records."""
    return replace(table, features=table.features[rows], labels=table.labels[rows])


def joined(tables: Sequence[Table]) -> Table:
    """All records of several tables of one schema."""
    return replace(
        tables[0],
        features=np.concatenate([table.features for table in tables]),
        labels=np.concatenate([table.labels for table in tables]),
    )


def scaled(table: Table, low: NDArray[np.float64], high: NDArray[np.float64]) -> Table:
    """Features mapped to [-1, 1] by public bounds, which must not come from the data; clipped."""
    unit = (table.features - low) / (high - low)
    return replace(table, features=np.clip(unit * 2 - 1, -1.0, 1.0))


def _site_split(table: Table, by_class: Sequence[NDArray[np.int64]], held_back: float) -> SiteSplit:
    train, held = [], []
    for members in by_class:
        count = max(1, round(len(members) * held_back))
        if len(members) <= count:
            raise DataError(
                "too few records to give each site both labels", hint="use fewer sites, less skew"
            )
        held.append(members[:count])
        train.append(members[count:])
    return SiteSplit(
        take(table, np.sort(np.concatenate(train))), take(table, np.sort(np.concatenate(held)))
    )


def _rows(path: Path, limits: TableLimits) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("rb") as file:
            lines = _lines(path, file, limits)
            for number, row in enumerate(csv.reader(lines), 1):
                if row:
                    yield number, row
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}", hint="check the path in the site file"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error


def _lines(path: Path, file: object, limits: TableLimits) -> Iterator[str]:
    readline = file.readline  # type: ignore[attr-defined]  # a binary file
    for number in range(1, limits.max_rows + 2):
        raw: bytes = readline(limits.max_line_bytes + 1)
        if not raw:
            return
        if len(raw) > limits.max_line_bytes:
            raise DataError(
                f"{path}: line {number} is longer than {limits.max_line_bytes:,} bytes",
                hint="check that the file is a CSV file with line ends",
            )
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: line {number}, byte {error.start + 1} is not UTF-8",
                hint="save the file as UTF-8",
            ) from error
    raise DataError(f"{path}: more than {limits.max_rows:,} records")


def _check_columns(
    path: Path, header: Sequence[str], names: Sequence[str], *, in_order: bool
) -> None:
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(
            f"{path}: line 1: there is no column {missing[0]!r}",
            hint=_renamed(header, names) or "add it, or leave the feature out at every site",
        )
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: line 1: column {twice[0]!r} stands there twice")
    if in_order:
        known = set(names)
        for found, name in zip((one for one in header if one in known), names, strict=True):
            if found != name:
                raise DataError(
                    f"{path}: line 1: column {found!r} stands where {name!r} was agreed on",
                    hint="put the columns, names and values, in the agreed order",
                )


def _renamed(header: Sequence[str], names: Sequence[str]) -> str:
    """What a missing column may be called here, where one stands in its place."""
    for found, name in zip(header, names, strict=False):
        if found != name and name not in header and found not in names:
            return f"column {found!r} stands in its place: is it the same measurement?"
    return ""


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(
            f"{path}: line {line}, column {column!r}: {text[:40]!r} is no number"
        ) from error
    if not np.isfinite(value):
        raise DataError(
            f"{path}: line {line}, column {column!r} is {value}",
            hint="fill in or leave out records with missing values",
        )
    return value


def _code(path: Path, line: int, column: str, value: str, known: Sequence[str]) -> int:
    if value in known:
        return known.index(value)
    raise DataError(
        f"{path}: line {line}, column {column!r}: label {value[:40]!r} is not one of "
        f"{', '.join(known)}",
        hint="use the labels that the federation agreed on",
    )
