"""A Flower app, loaded by reference; its digest over all its files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from comity.errors import ConfigError
from comity.ids import AppDigest

Scalar = bool | int | float | str
NO_DIGEST: Final = AppDigest("")
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "dist", "build"})


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where another process finds an app's `ClientApp`.

    Attributes:
        folder: Added to the import path; empty for installed modules.
        client: ``module:attribute``.
        preload: Modules imported before the app, so that their generators can be seeded before
            the app's first call imports them itself.
    """

    folder: str
    client: str
    preload: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {"folder": self.folder, "client": self.client, "preload": list(self.preload)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AppSource:
        """Reads what `to_json` made."""
        return cls(document["folder"], document["client"], tuple(document["preload"]))


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """A Flower app that is ready to run.

    Attributes:
        name: For people.
        server: The `ServerApp`, or ``module:attribute``.
        client: The `ClientApp` (threads only), or where a worker process finds it.
        config: The run configuration, flat, overrides included.
        digest: SHA-256 over the app's files, or over what stands for them.
    """

    name: str
    server: ServerApp | str
    client: ClientApp | AppSource
    config: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    digest: AppDigest = NO_DIGEST


def app_digest(folder: Path) -> AppDigest:
    """SHA-256 over relative path and content of each file of the app, in order of path."""
    digest = hashlib.sha256(b"comity/app/v1")
    for path in sorted(app_files(folder), key=lambda p: p.relative_to(folder).as_posix()):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return AppDigest(f"sha256:{digest.hexdigest()}")


def app_files(folder: Path) -> Iterator[Path]:
    """The files that make an app: not hidden ones, caches, builds or environments."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _SKIPPED or path.suffix == ".pyc":
            continue
        if path.is_dir():
            if not (path / "pyvenv.cfg").exists():
                yield from app_files(path)
        elif path.is_file():
            yield path


def load_server(app: LoadedApp) -> ServerApp:
    """The app's `ServerApp`, imported here.

    Raises:
        ConfigError: Importing it fails, or it is something else.
    """
    if isinstance(app.server, ServerApp):
        return app.server
    folder = app.client.folder if isinstance(app.client, AppSource) else ""
    found = _load(folder, app.server)
    if not isinstance(found, ServerApp):
        raise _not_an_app(app.server, found, "ServerApp")
    return found


def load_client(source: AppSource) -> ClientApp:
    """The `ClientApp` that `source` names, imported here.

    Raises:
        ConfigError: Importing it fails, or it is something else.
    """
    for module in source.preload:
        importlib.import_module(module)
    found = _load(source.folder, source.client)
    if not isinstance(found, ClientApp):
        raise _not_an_app(source.client, found, "ClientApp")
    return found


def _not_an_app(reference: str, found: object, kind: str) -> ConfigError:
    return ConfigError(
        f"{reference} is a {type(found).__name__}, not a {kind}",
        hint=f"point the app's pyproject.toml at a flwr {kind}",
    )


def _load(folder: str, reference: str) -> object:
    module_name, _, attributes = reference.partition(":")
    if folder:
        _make_importable(folder, module_name.split(".")[0])
    try:
        found: object = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except BaseException as error:  # the wall: importing runs the app's code
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            f"{reference} cannot be imported: {_where(error, folder)}{type(error).__name__}: "
            f"{error}",
            hint="run the app's own tests, or install what it imports into this environment",
        ) from error
    return found


def _make_importable(folder: str, top: str) -> None:
    """Puts `folder` first, and forgets modules of that name that came from another app."""
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    known = sys.modules.get(top)
    if known is None or str(getattr(known, "__file__", "")).startswith(folder):
        return
    if importlib.machinery.PathFinder.find_spec(top, [folder]) is not None:
        for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[name]


def _where(error: BaseException, folder: str) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if folder and frame.filename.startswith(folder):
            return f"{frame.filename}, line {frame.lineno}: "
    return ""
