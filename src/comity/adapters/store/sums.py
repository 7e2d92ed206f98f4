"""A site's places in secure sums: one file a run, replaced whole, readable by its owner only."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.errors import DataError, UnavailableError
from comity.ports import KeptContribution, KeptSum, SealedUpload

MAX_RUNS: Final = 64
# What zipfile, NumPy and json raise over bytes that were altered; RuntimeError where a flag then
# says that the file is encrypted or of a method that Python lacks.
_DAMAGES: Final = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
_STATE: Final = "state"
_HEADER: Final = "header"
_VECTOR: Final = "vector"
_GIVEN: Final = "given"
_ARRAY: Final = "array."


@dataclass(slots=True)
class MemorySumStore:
    """`SumStore` for sites that end with their process."""

    _kept: dict[str, KeptSum] = field(default_factory=dict)

    def load(self, run: str) -> KeptSum | None:
        """What was kept last for `run`."""
        return self._kept.get(run)

    def keep(self, run: str, kept: KeptSum) -> None:
        """Replaces what is kept for `run`."""
        self._kept[run] = kept


class FileSumStore:
    """`SumStore` over a folder; what is kept for the oldest runs makes room for new ones.

    Args:
        folder: Made when it is missing, readable by its owner only.
        max_runs: How many runs are kept.
    """

    def __init__(self, folder: Path, *, max_runs: int = MAX_RUNS) -> None:
        self._folder = folder
        self._max_runs = max_runs

    def load(self, run: str) -> KeptSum | None:
        """What was kept last for `run`.

        Raises:
            DataError: The file is damaged.
            UnavailableError: It cannot be read.
        """
        path = self._path(run)
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{path}: {error.strerror}") from error
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as found:
                return _read(dict(found))
        except _DAMAGES as error:
            raise DataError(
                f"{path} is damaged: {error}",
                hint="remove it: the site then takes part again in the run's next epoch",
            ) from error

    def keep(self, run: str, kept: KeptSum) -> None:
        """Replaces what is kept for `run`; on disk when this returns.

        Raises:
            UnavailableError: The disk is full or read-only; what was kept before still stands.
        """
        path = self._path(run)
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **_written(kept))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            self._settle()
        except OSError as error:
            raise UnavailableError(
                f"{path}: {error.strerror}", hint="make room or make the folder writable"
            ) from error

    def _path(self, run: str) -> Path:
        # A peer chose the run's name: it never becomes a path.
        return self._folder / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.npz"

    def _settle(self) -> None:
        files = sorted(self._folder.glob("*.npz"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[: -self._max_runs]:
            file.unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _written(kept: KeptSum) -> dict[str, Any]:
    parts: dict[str, Any] = {_STATE: _octets(kept.state)}
    if kept.upload is not None:
        parts |= {_HEADER: _octets(kept.upload.header), _VECTOR: kept.upload.vector}
    given = kept.contribution
    if given is not None:
        names = list(given.arrays)
        document = {
            "round_number": given.round_number,
            "received": given.received.hex(),
            "weight": given.weight.hex(),
            "metrics": [value.hex() for value in given.metrics],
            "names": list(given.names),
            "arrays": names,
        }
        parts[_GIVEN] = _octets(json.dumps(document).encode())
        # The arrays' own names are the app's: numbered here, so that none can be another part.
        parts |= {f"{_ARRAY}{place}": given.arrays[name] for place, name in enumerate(names)}
    return parts


def _read(found: dict[str, NDArray[Any]]) -> KeptSum:
    upload = contribution = None
    if _HEADER in found:
        upload = SealedUpload(found[_HEADER].tobytes(), found[_VECTOR])
    if _GIVEN in found:
        document = json.loads(found[_GIVEN].tobytes())
        contribution = KeptContribution(
            int(document["round_number"]),
            bytes.fromhex(document["received"]),
            {name: found[f"{_ARRAY}{place}"] for place, name in enumerate(document["arrays"])},
            float.fromhex(document["weight"]),
            tuple(float.fromhex(value) for value in document["metrics"]),
            tuple(document["names"]),
        )
    return KeptSum(found[_STATE].tobytes(), contribution, upload)


def _octets(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
