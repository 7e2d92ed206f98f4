"""A Flower app's `pyproject.toml`: read and checked as a whole before any of its code runs."""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement

from comity.adapters.flower.app import AppSource, LoadedApp, Scalar, app_digest, app_files
from comity.errors import ConfigError, Fault

PROJECT_FILE: Final = "pyproject.toml"
_PAIR: Final = re.compile(r"""\s*(?P<key>[^\s=]+)=(?P<value>'[^']*'|"[^"]*"|\S+)\s*""")
_PRELOADED: Final = frozenset({"torch"})


def read_app(folder: Path, overrides: Sequence[str] = ()) -> LoadedApp:
    """Reads the Flower app in `folder` and checks it without running any of its code.

    Args:
        folder: Holds a ``pyproject.toml`` with ``[tool.flwr.app]``.
        overrides: ``key=value`` in TOML, several in one string as in ``flwr run``.

    Raises:
        ConfigError: With all faults at once: a missing folder, file or section, a syntax error, a
            reference that leads nowhere, another flwr wanted, an unknown key or a wrong type.
    """
    project = _read_project(folder)
    faults: list[Fault] = []
    file = str(folder / PROJECT_FILE)
    app = _table(project, "tool", "flwr", "app")
    components = _table(app, "components")
    references: dict[str, str] = {}
    for name in ("serverapp", "clientapp"):
        path = f"tool.flwr.app.components.{name}"
        reference = components.get(name)
        if isinstance(reference, str) and reference.count(":") == 1:
            references[name] = reference
            faults += _reference_faults(folder, reference, file, path)
        else:
            problem = "is missing" if reference is None else f"is {reference!r}"
            faults.append(Fault(path, problem, 'write "module:attribute"', file))
    requirements = _requirements(project)
    faults += _flwr_faults(requirements, file)
    config, wrong = _run_config(app.get("config", {}), overrides, file)
    faults += wrong
    faults += _syntax_faults(folder)
    if faults:
        raise ConfigError(f"the app in {folder} cannot run", faults=dict.fromkeys(faults))
    names = {requirement.name.lower() for requirement in requirements}
    preload = tuple(sorted(_PRELOADED & names))
    source = AppSource(str(folder.resolve()), references["clientapp"], preload)
    name = str(_table(project, "project").get("name", folder.resolve().name))
    return LoadedApp(name, references["serverapp"], source, config, app_digest(folder))


def foreign_components(folder: Path, app: LoadedApp) -> list[Fault]:
    """The components of the app in `folder` that its own files do not hold."""
    client = app.client.client if isinstance(app.client, AppSource) else ""
    found = []
    for name, reference in (("serverapp", str(app.server)), ("clientapp", client)):
        module = reference.partition(":")[0]
        if _module_file(folder, module) is None:
            problem = f"{module} is installed, so the app's digest says nothing of it"
            hint = "move the module into the app's folder"
            found.append(Fault(f"tool.flwr.app.components.{name}", problem, hint))
    return found


def _read_project(folder: Path) -> dict[str, Any]:
    file = folder / PROJECT_FILE
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="give the folder of a Flower app")
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file} does not exist", hint="give the folder that holds the app's pyproject.toml"
        ) from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="correct the file") from error
    if not _table(project, "tool", "flwr", "app"):
        fault = Fault("tool.flwr.app", "is missing", "name the app's components there", str(file))
        raise ConfigError(f"{folder} holds no Flower app", faults=[fault])
    return project


def _table(document: Mapping[str, Any], *path: str) -> dict[str, Any]:
    found: Any = document
    for name in path:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _requirements(project: Mapping[str, Any]) -> list[Requirement]:
    listed = _table(project, "project").get("dependencies", [])
    found = []
    for text in listed if isinstance(listed, list) else []:
        try:
            found.append(Requirement(str(text)))
        except InvalidRequirement:
            continue  # not ours to judge: only the pin on flwr decides whether the app can run
    return found


def _flwr_faults(requirements: Sequence[Requirement], file: str) -> Iterator[Fault]:
    installed = importlib.metadata.version("flwr")
    for requirement in requirements:
        wanted = requirement.specifier
        if requirement.name == "flwr" and not wanted.contains(installed, prereleases=True):
            problem = f"wants flwr{wanted}, and flwr {installed} is installed"
            yield Fault("project.dependencies", problem, "relax the pin, or run it there", file)


def _reference_faults(folder: Path, reference: str, file: str, path: str) -> Iterator[Fault]:
    module, _, attribute = reference.partition(":")
    found = _module_file(folder, module)
    if found is None:
        if _installed(module):
            return
        yield Fault(path, f"module {module} does not exist in {folder}", "correct the name", file)
        return
    try:
        names = _top_level_names(ast.parse(found.read_bytes(), str(found)))
    except SyntaxError:
        return  # reported with its file and line
    if attribute.split(".")[0] not in names and "*" not in names:
        yield Fault(path, f"{found} defines no {attribute}", "correct the name", file)


def _module_file(folder: Path, module: str) -> Path | None:
    base = folder.joinpath(*module.split("."))
    for candidate in (base.with_name(base.name + ".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _installed(module: str) -> bool:
    top = module.split(".", maxsplit=1)[0]
    return top in sys.modules or importlib.util.find_spec(top) is not None


def _top_level_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
    return names


def _syntax_faults(folder: Path) -> Iterator[Fault]:
    for path in app_files(folder):
        if path.suffix != ".py":
            continue
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            problem = f"does not parse: {getattr(error, 'msg', error)}"
            yield Fault(f"line {line}", problem, "correct the file", str(path))


def _run_config(
    table: object, overrides: Sequence[str], file: str
) -> tuple[dict[str, Scalar], list[Fault]]:
    path = "tool.flwr.app.config"
    faults: list[Fault] = []
    config = dict(_flat(table, path, file, faults)) if isinstance(table, dict) else {}
    for key, value in _parse_overrides(overrides, config).items():
        if key not in config:
            near = difflib.get_close_matches(key, config, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(config) or 'none'}"
            faults.append(Fault(f"--run-config {key}", "is not a key of the app", hint, file))
            continue
        known = type(config[key])
        if known is float and type(value) is int:
            value = float(value)  # noqa: PLW2901 - an integer is a fine float
        if type(value) is not known:
            problem = f"is {value!r}, and the app's own value is {config[key]!r}"
            faults.append(Fault(f"--run-config {key}", problem, f"write a {known.__name__}", file))
            continue
        config[key] = value
    return config, faults


def _flat(
    table: Mapping[str, Any], path: str, file: str, faults: list[Fault], prefix: str = ""
) -> Iterator[tuple[str, Scalar]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, path, file, faults, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            yield name, value
        else:
            problem = f"is a {type(value).__name__}"
            hint = "write a number, a text, true or false"
            faults.append(Fault(f"{path}.{name}", problem, hint, file))


def _parse_overrides(overrides: Sequence[str], known: Mapping[str, Scalar]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in overrides:
        position = 0
        while position < len(text):
            pair = _PAIR.match(text, position)
            if pair is None:
                problem = f"--run-config {text[position:].strip()!r} has no value"
                raise ConfigError(problem, hint="write key=value")
            found[pair["key"]] = _parse_value(pair["key"], pair["value"], known)
            position = pair.end()
    return found


def _parse_value(key: str, text: str, known: Mapping[str, Scalar]) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if isinstance(known.get(key), str):
            return text
        raise ConfigError(
            f"--run-config {key} is {text!r}, which is not a TOML value",
            hint='write a number, true, false or "text"',
        ) from error
