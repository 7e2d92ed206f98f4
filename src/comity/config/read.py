"""A TOML file from disk: read within a limit, every way to fail said with file, line and column."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from comity.errors import ConfigError

MAX_FILE_BYTES: Final = 2**20
_POSITION = re.compile(r"^(?P<what>.*?) \(at (?P<where>.*)\)$", re.DOTALL)


def read_toml(file: Path, *, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """The document in `file`.

    Args:
        file: A TOML 1.0 file in UTF-8; a leading byte order mark is ignored.
        max_bytes: The most that is read.

    Raises:
        ConfigError: The file is missing, no regular file, unreadable, too large, not UTF-8, or
            not TOML; a syntax error names line and column.
    """
    content = _content(file, max_bytes)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8",
            hint="save the file in UTF-8",
        ) from error
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{file} nests too deeply", hint="flatten its lists") from error
    except ValueError as error:  # TOMLDecodeError, and integers beyond Python's digit limit
        found = _POSITION.match(str(error))
        what, where = (found["what"], found["where"]) if found else (str(error), "")
        if where == "end of document":
            where = f"line {text.count(chr(10)) + 1}, end of file"
        raise ConfigError(
            f"{file}{where and ', '}{where}: {what}",
            hint="correct the TOML there (https://toml.io/en/v1.0.0)",
        ) from error


def _content(file: Path, max_bytes: int) -> bytes:
    try:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder", hint="give the file in it")
        if file.exists() and not file.is_file():
            raise ConfigError(f"{file} is not a regular file", hint="give a TOML file")
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist", hint="correct the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{str(file)[:200]!r} cannot be read: {reason}", hint="check the path and its rights"
        ) from error
    if len(content) > max_bytes:
        raise ConfigError(
            f"{file} is larger than {max_bytes} bytes", hint="give a configuration file"
        )
    return content
