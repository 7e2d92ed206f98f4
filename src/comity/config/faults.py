"""From pydantic's errors to `Fault`s: dotted paths, plain words, and the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import EnumType
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from comity.config.read import read_toml
from comity.config.section import FOLDER, WHOLE_NAME_PATTERN
from comity.errors import ConfigError, Fault

ModelT = TypeVar("ModelT", bound=BaseModel)
CrossCheck = Callable[[dict[str, Any], Path], Iterable[Fault]]

MAX_SHOWN: Final = 80
NAME_HINT: Final = "use 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end"

_PROBLEMS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "is {shown}, not a text",
    "path_type": "is {shown}, not a path",
    "int_type": "is {shown}, not a whole number",
    "int_from_float": "is {shown}, not a whole number",
    "float_type": "is {shown}, not a number",
    "bool_type": "is {shown}, not true or false",
    "finite_number": "is {shown}, not a finite number",
    "tuple_type": "is {shown}, not a list",
    "frozen_set_type": "is {shown}, not a list",
    "mapping_type": "is {shown}, not a table",
    "dict_type": "is {shown}, not a table",
    "model_type": "is {shown}, not a table",
    "enum": "is {shown}",
    "greater_than": "is {shown}, and must be above {gt}",
    "greater_than_equal": "is {shown}, and must be at least {ge}",
    "less_than": "is {shown}, and must be below {lt}",
    "less_than_equal": "is {shown}, and must be at most {le}",
    "string_pattern_mismatch": "is {shown}",
    "string_too_long": "is longer than {max_length} characters",
    "string_too_short": "is empty",
    "too_short": "holds {actual_length}, and must hold at least {min_length}",
    "comity": "{problem}",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def load(model: type[ModelT], file: Path, cross_check: CrossCheck) -> ModelT:
    """Reads `file` as `model`, or says everything that is wrong with it.

    Raises:
        ConfigError: The file cannot be read, or `checked` finds faults.
    """
    return checked(model, read_toml(file), file, cross_check)


def checked(
    model: type[ModelT], document: dict[str, Any], file: Path, cross_check: CrossCheck
) -> ModelT:
    """A document as `model`, or everything that is wrong with it.

    Args:
        model: What the document holds.
        document: What a TOML file parses to.
        file: Where it stands; relative paths in it start from its folder.
        cross_check: Finds the faults that lie between fields, in the unchecked document, so that
            a fault elsewhere hides none of them.

    Raises:
        ConfigError: With one `Fault` for each wrong field, in order of path.
    """
    found: ModelT | None = None
    faults: list[Fault] = []
    try:
        found = model.model_validate(document, context={FOLDER: file.absolute().parent})
    except ValidationError as error:
        faults = [_fault(model, details, file) for details in error.errors()]
    faults += cross_check(document, file)
    if found is None or faults:
        faults = sorted(dict.fromkeys(faults))
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError(f"{file} has {count}", faults=faults)
    return found


def dotted(location: Iterable[int | str]) -> str:
    """The path of a field as TOML writes it: keys that are not bare are quoted."""
    return ".".join(
        str(part) if _BARE_KEY.fullmatch(str(part)) else f'"{str(part)[:MAX_SHOWN]}"'
        for part in location
    )


def shown(value: object) -> str:
    """A value as its owner wrote it, in at most `MAX_SHOWN` characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value[:MAX_SHOWN])
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    try:
        return str(value)[:MAX_SHOWN]
    except ValueError:  # an integer beyond Python's digit limit
        return "a huge number"


def counted(number: int, what: str, several: str = "") -> str:
    """A number of things in words: 1 site, 2 sites."""
    return f"{number} {what if number == 1 else several or what + 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a question, or all that are known."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(words)}"


def _fault(model: type[BaseModel], details: ErrorDetails, file: Path) -> Fault:
    location = tuple(part for part in details["loc"] if part != "[key]")
    context = details.get("ctx", {})
    pattern = _PROBLEMS.get(details["type"], "is {shown}: " + details["msg"].replace("{", "{{"))
    figures = {key: _figure(value) for key, value in context.items()}
    problem = pattern.format(**{**figures, "shown": shown(details["input"])})
    hint = str(context.get("hint", "")) or _hint(model, details, location)
    return Fault(dotted(location), problem, hint, str(file))


def _figure(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _hint(model: type[BaseModel], details: ErrorDetails, location: tuple[int | str, ...]) -> str:
    if details["type"] == "extra_forbidden":
        return did_you_mean(str(location[-1]), _keys_at(model, location[:-1]))
    if details["type"] == "enum":
        field = _field_at(model, location)
        word = details["input"] if isinstance(details["input"], str) else ""
        return did_you_mean(word, _members(field.annotation if field else None))
    if details.get("ctx", {}).get("pattern") == WHOLE_NAME_PATTERN:
        return NAME_HINT
    return _description_at(model, location)


def _members(annotation: object) -> list[str]:
    enums = (found for found in _walk(annotation) if isinstance(found, EnumType))
    return [name for enum in enums for name in map(str, enum.__members__.values())]


def _walk(annotation: object) -> Iterator[object]:
    yield annotation
    for argument in get_args(annotation):
        yield from _walk(argument)


def _model_in(annotation: object) -> type[BaseModel] | None:
    for found in _walk(annotation):
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field_at(model: type[BaseModel], location: tuple[int | str, ...]) -> FieldInfo | None:
    """The field at `location`, or the one whose table or list holds it."""
    found: FieldInfo | None = None
    inside_container = False
    for part in location:
        if inside_container:
            inside_container = False
            continue
        owner = _model_in(found.annotation) if found else model
        found = _fields(owner).get(str(part)) if owner else None
        inside_container = found is not None and get_origin(found.annotation) in {
            Mapping,
            tuple,
            frozenset,
        }
    return found


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    field = _field_at(model, location)
    owner = _model_in(field.annotation) if field else model
    return list(_fields(owner)) if owner else []


def _description_at(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    field = _field_at(model, location)
    return (field.description or "").rstrip(".") if field else ""
