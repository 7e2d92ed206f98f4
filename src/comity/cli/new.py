"""`comity new`: writes a small app that runs at once, whole or not at all."""

from __future__ import annotations

import importlib.util
import keyword
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Final

import click

from comity.cli.terminal import json_option, print_json
from comity.errors import ConfigError, Fault, UnavailableError
from comity.ids import checked_name

TEMPLATES: Final = ("numpy", "sklearn", "torch", "ask")
_PACKAGE: Final = "package"
"""Stands in a template for the folder that is named after the app."""
_SKIPPED: Final = frozenset({"__pycache__"})


@click.command()
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="numpy",
    show_default=True,
    help="What to begin with: a Flower app, or a federation that answers questions.",
)
@json_option
def command(folder: Path, template: str, *, as_json: bool) -> None:
    """Write a small app that runs at once into a new folder NAME.

    \b
    Example:
      comity new my-app --template numpy
    """  # noqa: D301 - click reads \b as "keep these lines"
    files = write_template(folder, template)
    commands = _next_commands(folder, template)
    if as_json:
        document = {"folder": folder, "template": template, "files": files, "next": commands}
        print_json(document)
        return
    click.echo(f"wrote {len(files)} files to {folder}\n\nnext:")
    for line in commands:
        click.echo(f"  {line}")


def write_template(folder: Path, template: str) -> list[str]:
    """Writes a template as `folder` in one step, and returns its files' relative paths.

    Args:
        folder: Does not exist yet, or is empty. Its last part is the app's name.
        template: One of `TEMPLATES`.

    Raises:
        ConfigError: The name does not fit, or the folder holds something.
        UnavailableError: The folder cannot be written; nothing is left behind.
    """
    name = checked_name(folder.name, path="NAME")
    package = name.replace("-", "_")
    if template != "ask":
        _check_package(name, package)
    if folder.is_symlink() or (folder.exists() and not _is_empty_folder(folder)):
        raise ConfigError(f"{folder} exists already", hint="choose another name, or empty it")
    words = {"name": name, "package": package, "folder": shlex.quote(str(folder))}
    files = dict(_rendered(template, words))
    try:
        _write_at_once(folder, files)
    except OSError as error:
        raise UnavailableError(
            f"{folder} cannot be written: {error.strerror}",
            hint="choose a folder that you may write to, with space left",
        ) from error
    return sorted(files)


def _check_package(name: str, package: str) -> None:
    problem = ""
    if not package.isidentifier() or keyword.iskeyword(package):
        problem = f"{package!r} is not a name that Python can import"
    elif importlib.util.find_spec(package) is not None:
        problem = f"{package!r} is already the name of an installed Python package"
    if problem:
        fault = Fault("NAME", problem, f"choose another, such as my-{name}")
        raise ConfigError(f"{fault.path}: {problem}", hint=fault.hint, faults=[fault])


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _rendered(template: str, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    root = resources.files("comity") / "templates" / template
    for path, file in _files(root, PurePosixPath()):
        parts = (words["package"] if part == _PACKAGE else part for part in path.parts)
        text = file.read_text(encoding="utf-8")
        if path.suffix != ".py":
            text = Template(text).substitute(words)
        yield str(PurePosixPath(*parts)), text


def _files(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in folder.iterdir():
        if entry.name in _SKIPPED:
            continue
        if entry.is_dir():
            yield from _files(entry, path / entry.name)
        else:
            yield path / entry.name, entry


def _write_at_once(folder: Path, files: Mapping[str, str]) -> None:
    """Writes beside the target and renames: a failure leaves nothing behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=".comity-new-", dir=folder.parent))
    try:
        draft = workplace / folder.name
        for path, text in files.items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        os.rename(draft, folder)  # noqa: PTH104 - over an empty folder, as rename(2) allows
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _next_commands(folder: Path, template: str) -> list[str]:
    place = shlex.quote(str(folder))
    if template == "ask":
        federation = shlex.quote(str(folder / "federation.toml"))
        return [
            f"comity config check {federation}",
            f'comity ask --federation {federation} "How often is the gearbox oil changed?"',
        ]
    return [f"comity run {place} --sites 4", f"comity run {place} --run-config rounds=10"]
