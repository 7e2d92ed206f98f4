"""A trusted digest is of the code that runs: what the digest does not cover does not run."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comity.adapters.flower.app import LoadedApp, app_digest
from comity.adapters.flower.engine import EngineSettings, run_app
from comity.adapters.flower.sealed import app_for, sealed_app
from comity.adapters.flower.site_engine import SimulatedSite
from comity.core.policy.rule import SitePolicy, TrainPolicy
from comity.errors import ConfigError, UnavailableError
from comity.ids import AppDigest, SiteName
from comity.services.gate import UnsafeSimulationGate

PROJECT = """
[project]
name = "honest"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "honest.app:server"
clientapp = "honest.app:client"
[tool.flwr.app.config]
"""
CODE = """
import importlib
from pathlib import Path
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()

def value():
    for name in ("helper", "build.helper", "dist.helper", "env.helper", "here"):
        try:
            return importlib.import_module(name).VALUE
        except ImportError:
            continue
    return float((Path(__file__).parent / "value.txt").read_text())

@client.query()
def query(message, context):
    return Message(RecordDict({"m": MetricRecord({"client": value()})}), reply_to=message)

@server.main()
def main(grid, context):
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([Message(RecordDict(), node, "query")])
    context.state["m"] = MetricRecord({**reply.content["m"], "server": value()})
"""
PLANTED = "VALUE = 666.0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "app" / "honest"
    package.mkdir(parents=True)
    (tmp_path / "app" / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(CODE)
    (package / "value.txt").write_text("1.0")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path / "app"


def bytecode(source: Path, text: str, target: Path | None = None) -> None:
    """Bytecode that Python takes for `source` without looking at it."""
    code = compile(text, str(source), "exec")
    data = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)
    cached = target or Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(data)


def beside_the_module(folder: Path) -> None:
    bytecode(folder / "honest" / "app.py", CODE.replace("float(", "666.0 + 0 * float("))


def bytecode_alone(folder: Path) -> None:
    bytecode(folder / "helper.py", PLANTED, folder / "helper.pyc")


def package(name: str, *, marked: bool = False) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        (folder / name).mkdir()
        (folder / name / "helper.py").write_text(PLANTED)
        if marked:
            (folder / name / "pyvenv.cfg").write_text("")

    return plant


def working_folder(folder: Path) -> None:
    del folder
    Path("here.py").write_text(PLANTED)


ATTACKS: dict[str, Callable[[Path], None]] = {
    "bytecode beside a module, never checked against it": beside_the_module,
    "bytecode without a source": bytecode_alone,
    "a package that is taken for a build": package("build"),
    "a package that is taken for a distribution": package("dist"),
    "a package that is taken for an environment": package("env", marked=True),
    "a module in the working folder": working_folder,
}


def ran(app: LoadedApp) -> dict[str, float]:
    own = [SimulatedSite(SiteName("site-1"), UnsafeSimulationGate())]
    return dict(run_app(app, own, EngineSettings(workers=1)).metrics["m"])


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_the_digest_does_not_cover_does_not_run(attack: str, folder: Path) -> None:
    digest = app_digest(folder)
    ATTACKS[attack](folder)
    assert app_digest(folder) == digest, "the attack is one that the digest does not see"
    before = list(sys.path)
    with sealed_app(folder) as app:
        assert (app.digest, app.name) == (digest, "honest")
        assert ran(app) == {"client": 1.0, "server": 1.0}
    assert sys.path == before
    assert "honest.app" not in sys.modules


def test_what_changes_after_the_digest_was_taken_does_not_run(folder: Path) -> None:
    with sealed_app(folder) as app:
        (folder / "honest" / "value.txt").write_text("666")
        (folder / "honest" / "app.py").write_text("raise SystemExit")
        assert ran(app) == {"client": 1.0, "server": 1.0}


def test_a_component_that_is_installed_has_no_digest(folder: Path) -> None:
    project = folder / "pyproject.toml"
    project.write_text(PROJECT.replace("honest.app:client", "flwr.clientapp:ClientApp"))
    with pytest.raises(ConfigError) as caught, sealed_app(folder):
        pass
    assert [fault.path for fault in caught.value.faults] == ["tool.flwr.app.components.clientapp"]


def test_a_full_disk_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device", str(paths))

    monkeypatch.setattr("comity.adapters.flower.sealed.shutil.copyfile", full)
    with pytest.raises(UnavailableError, match="No space left"), sealed_app(folder):
        pass


def test_an_app_is_sealed_only_where_its_digest_counts(folder: Path) -> None:
    trusting = SitePolicy(TrainPolicy(trusted_trainers=frozenset({AppDigest("sha256:x")})))
    for policies, sealed in (([], False), ([SitePolicy()], False), ([trusting], True)):
        with app_for(folder, (), policies) as app:
            assert (str(folder) not in str(app.client)) == sealed
