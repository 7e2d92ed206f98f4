"""What all tables of our files share: frozen, strict, kebab-case keys, nothing unknown."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Strict,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from comity.ids import NAME_PATTERN

FOLDER: Final = "folder"
"""Key of the validation context: the folder that relative paths start from."""


class Section(BaseModel):
    """One table of a configuration file: immutable, and what it does not know it refuses."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        str_max_length=4096,
    )


def wrong(problem: str, hint: str) -> PydanticCustomError:
    """A fault that a validator found: the problem in plain words, and the way out."""
    return PydanticCustomError("comity", "{problem}", {"problem": problem, "hint": hint})


def _resolved(value: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get(FOLDER, Path())
    if any(ord(character) < ord(" ") for character in str(value)):
        raise wrong("holds a control character", "write a plain path")
    return Path(os.path.abspath(folder / value))  # noqa: PTH100 - resolve() would follow links


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        text = str(path)[:80]
        raise wrong(f"{text} cannot be read: {error.strerror}", "correct the path") from error


def _existing_source(path: Path) -> Path:
    if _mode(path) is None:
        raise wrong(f"{path} does not exist", "write a path relative to this file, or absolute")
    return path


def _existing_file(path: Path) -> Path:
    if not stat.S_ISREG(_mode(_existing_source(path)) or 0):
        raise wrong(f"{path} is not a file", "name a file")
    return path


def _existing_folder(path: Path) -> Path:
    if not stat.S_ISDIR(_mode(_existing_source(path)) or 0):
        raise wrong(f"{path} is not a folder", "name a folder")
    return path


def _future_folder(path: Path) -> Path:
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise wrong(f"{path} is not a folder", "name a folder; it is made when it is missing")
    return path


WHOLE_NAME_PATTERN: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, StringConstraints(pattern=WHOLE_NAME_PATTERN)]
"""A DNS label, as `comity.ids.checked_name` has it."""

AnyPath = Annotated[Path, Strict(strict=False), AfterValidator(_resolved)]
SourcePath = Annotated[AnyPath, AfterValidator(_existing_source)]
FilePath = Annotated[AnyPath, AfterValidator(_existing_file)]
FolderPath = Annotated[AnyPath, AfterValidator(_existing_folder)]
FutureFolderPath = Annotated[AnyPath, AfterValidator(_future_folder)]


def nested(document: object, *keys: str) -> dict[str, Any]:
    """The table at `keys` of an unchecked document; empty where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}
