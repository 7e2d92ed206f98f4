"""Bytes for messages: one encoding for one value, with a version and a limit on every length.

    message = "CSA" ‖ version ‖ kind ‖ field ‖ field ‖ ...
    number  = big-endian, fixed width        octets, text = length (4 bytes) ‖ bytes
    rows    = count (4 bytes) ‖ row ‖ row    row = its columns, one after the other

What does not follow the layout to the last byte is refused: there are no optional fields, and
nothing may stand behind the last one.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeVar

from comity.errors import Malformed, VersionMismatch

VERSION: Final = 1
_MAGIC: Final = b"CSA"
_HEADER_BYTES: Final = len(_MAGIC) + 2
_LARGEST_REAL: Final = 1e300


class Kind(Protocol):
    """How one field is written and read."""

    def write(self, value: Any, name: str) -> bytes:  # noqa: ANN401 - each kind has its own type
        """The bytes of `value`; raises `Malformed` beyond its limits."""

    def read(self, body: bytes, start: int, name: str) -> tuple[Any, int]:
        """The value at `start`, and where the next field starts."""


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of `size` bytes."""

    size: int
    signed: bool = False

    def write(self, value: int, name: str) -> bytes:
        """Big-endian bytes."""
        try:
            return value.to_bytes(self.size, "big", signed=self.signed)
        except OverflowError as error:
            raise Malformed(f"{name} is {value}, which {self.size} bytes do not hold") from error

    def read(self, body: bytes, start: int, name: str) -> tuple[int, int]:
        """The number."""
        piece, end = _take(body, start, self.size, name)
        return int.from_bytes(piece, "big", signed=self.signed), end


@dataclass(frozen=True, slots=True)
class Real:
    """A finite float64."""

    def write(self, value: float, name: str) -> bytes:
        """Eight bytes, IEEE 754."""
        self._check(value, name)
        return struct.pack(">d", value)

    def read(self, body: bytes, start: int, name: str) -> tuple[float, int]:
        """The number."""
        piece, end = _take(body, start, 8, name)
        value: float = struct.unpack(">d", piece)[0]
        self._check(value, name)
        return value, end

    @staticmethod
    def _check(value: float, name: str) -> None:
        if not abs(value) < _LARGEST_REAL or (value == 0 and math.copysign(1, value) < 0):
            raise Malformed(f"{name} is {value}")


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes, from `least` to `most` of them."""

    least: int
    most: int

    def write(self, value: bytes, name: str) -> bytes:
        """Length and bytes."""
        self._check(len(value), name)
        return len(value).to_bytes(4, "big") + value

    def read(self, body: bytes, start: int, name: str) -> tuple[bytes, int]:
        """The bytes."""
        piece, begin = _take(body, start, 4, name)
        size = int.from_bytes(piece, "big")
        self._check(size, name)
        return _take(body, begin, size, name)

    def _check(self, size: int, name: str) -> None:
        if not self.least <= size <= self.most:
            raise Malformed(f"{name} has {size} bytes; {self.least} to {self.most} may be")


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text of at most `most` bytes."""

    most: int

    def write(self, value: str, name: str) -> bytes:
        """Length and bytes."""
        try:
            return Octets(0, self.most).write(value.encode(), name)
        except UnicodeEncodeError as error:
            raise Malformed(f"{name} is no text that UTF-8 can carry") from error

    def read(self, body: bytes, start: int, name: str) -> tuple[str, int]:
        """The text."""
        piece, end = Octets(0, self.most).read(body, start, name)
        try:
            return piece.decode(), end
        except UnicodeDecodeError as error:
            raise Malformed(f"{name} is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class Rows:
    """At most `most` rows; each is a tuple over `columns`, or the bare value of a single one."""

    most: int
    columns: tuple[Kind, ...]

    def write(self, value: tuple[Any, ...], name: str) -> bytes:
        """Count and rows."""
        self._check(len(value), name)
        pieces = [len(value).to_bytes(4, "big")]
        for row in value:
            cells = (row,) if len(self.columns) == 1 else row
            pieces += [
                kind.write(cell, name) for kind, cell in zip(self.columns, cells, strict=True)
            ]
        return b"".join(pieces)

    def read(self, body: bytes, start: int, name: str) -> tuple[tuple[Any, ...], int]:
        """The rows."""
        piece, end = _take(body, start, 4, name)
        count = int.from_bytes(piece, "big")
        self._check(count, name)
        rows = []
        for _ in range(count):
            cells = []
            for kind in self.columns:
                cell, end = kind.read(body, end, name)
                cells.append(cell)
            rows.append(cells[0] if len(cells) == 1 else tuple(cells))
        return tuple(rows), end

    def _check(self, count: int, name: str) -> None:
        if count > self.most:
            raise Malformed(f"{name} has {count} rows; at most {self.most} may be")


Layout = tuple[tuple[str, Kind], ...]


class Coded(Protocol):
    """A message: a frozen dataclass whose fields `LAYOUT` names, in order."""

    CODE: ClassVar[int]
    LAYOUT: ClassVar[Layout]


M = TypeVar("M", bound=Coded)


def encode(message: Coded, *, without: str = "") -> bytes:
    """The bytes of `message`; what a signature covers is encoded `without` the signature.

    Raises:
        Malformed: A field breaks its limit.
    """
    pieces = [_MAGIC, bytes((VERSION, message.CODE))]
    pieces += [
        kind.write(getattr(message, name), name) for name, kind in message.LAYOUT if name != without
    ]
    return b"".join(pieces)


def decode(kind: type[M], body: bytes) -> M:
    """Reads what `encode` wrote, and nothing else.

    Raises:
        Malformed: `body` is no such message, or breaks a limit.
        VersionMismatch: It is of another version.
    """
    if body[: len(_MAGIC)] != _MAGIC or len(body) < _HEADER_BYTES:
        raise Malformed("this is no message of secure aggregation")
    version, code = body[len(_MAGIC) : _HEADER_BYTES]
    if version != VERSION:
        raise VersionMismatch(
            f"secure aggregation of version {version}; this release speaks {VERSION}",
            hint="let all members run one release",
        )
    if code != kind.CODE:
        raise Malformed(f"message {code} where a {kind.__name__} ({kind.CODE}) is due")
    fields, start = {}, _HEADER_BYTES
    for name, field in kind.LAYOUT:
        fields[name], start = field.read(body, start, name)
    if start != len(body):
        raise Malformed(f"{len(body) - start} bytes behind the last field of a {kind.__name__}")
    return kind(**fields)


def code_of(body: bytes) -> int:
    """Which message `body` claims to be; 0 where it is none."""
    return body[_HEADER_BYTES - 1] if len(body) >= _HEADER_BYTES else 0


def _take(body: bytes, start: int, size: int, name: str) -> tuple[bytes, int]:
    end = start + size
    if end > len(body):
        raise Malformed(f"{name} is cut off")
    return body[start:end], end
