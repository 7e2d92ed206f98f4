"""An app as it was digested: what runs is a private copy of exactly the files under its digest.

Python would also run what a digest does not cover: bytecode beside a module, folders that are
skipped as builds or environments, files that change between check and import. None of that is in
the copy. Installed packages are the environment's, and its owner's to trust.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from comity.adapters.flower.app import LoadedApp, app_files
from comity.adapters.flower.app_file import foreign_components, read_app
from comity.core.policy.rule import SitePolicy
from comity.errors import ConfigError, UnavailableError


@contextlib.contextmanager
def app_for(
    folder: Path, overrides: Sequence[str], policies: Iterable[SitePolicy]
) -> Iterator[LoadedApp]:
    """The app in `folder`: sealed where a policy trusts trainers by digest, else as it lies there.

    Raises:
        ConfigError: As `read_app`, and as `sealed_app` where it is sealed.
        UnavailableError: The copy cannot be written.
    """
    if any(policy.train.trusted_trainers for policy in policies):
        with sealed_app(folder, overrides) as app:
            yield app
    else:
        yield read_app(folder, overrides)


@contextlib.contextmanager
def sealed_app(folder: Path, overrides: Sequence[str] = ()) -> Iterator[LoadedApp]:
    """The app as a private copy of its digested files, which is gone afterwards.

    Data files beside the code are copied, too: an app finds them by ``__file__``. What it writes
    there is lost.

    Raises:
        ConfigError: As `read_app`; or a component is not among the app's own files.
        UnavailableError: The copy cannot be written.
    """
    checked = read_app(folder, overrides)
    with tempfile.TemporaryDirectory(prefix="comity-app-") as made:
        private = Path(made).resolve()
        try:
            _copy(folder, private)
        except OSError as error:
            raise UnavailableError(
                f"the app in {folder} cannot be copied: {error}", hint="free space for its files"
            ) from error
        app = read_app(private, overrides)  # the copy's own digest: nothing lies between
        faults = foreign_components(private, app)
        if faults:
            raise ConfigError(f"the app in {folder} is not covered by its digest", faults=faults)
        try:
            yield replace(app, name=checked.name)
        finally:
            _forget(str(private))


def _copy(folder: Path, private: Path) -> None:
    for path in app_files(folder):
        target = private / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _forget(folder: str) -> None:
    """Lets this process import nothing of the copy any more, from its files or from memory."""
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(f"{folder}/"):
            del sys.modules[name]
    importlib.invalidate_caches()
