from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp import ServerApp

from comity.adapters.flower.app import AppSource, app_digest, load_client, load_server
from comity.adapters.flower.app_file import read_app
from comity.errors import ConfigError

PROJECT = """
[project]
name = "sound"
dependencies = ["flwr>=1.41", "torch", "not a requirement"]
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "sound_app.server:app"
clientapp = "sound_app.client:wrapper.app"
[tool.flwr.app.config]
rounds = 3
rate = 0.5
name = "x"
on = true
nested = { deep = 1 }
"""
CLIENT = """
from flwr.clientapp import ClientApp
class wrapper:
    app = ClientApp()
"""
SERVER = """
from flwr.serverapp import ServerApp
app = ServerApp()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "sound_app"
    package.mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "client.py").write_text(CLIENT)
    (package / "server.py").write_text(SERVER)
    return tmp_path


def faults(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_app(folder, overrides)
    return [str(fault) for fault in caught.value.faults] or [caught.value.message]


def edited(folder: Path, old: str, new: str) -> Path:
    file = folder / "pyproject.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return folder


def test_a_sound_app_is_read_with_its_configuration_flat(folder: Path) -> None:
    app = read_app(folder)
    assert (app.name, app.server) == ("sound", "sound_app.server:app")
    assert app.client == AppSource(str(folder), "sound_app.client:wrapper.app", ("torch",))
    assert app.config == {"rounds": 3, "rate": 0.5, "name": "x", "on": True, "nested.deep": 1}
    assert AppSource.from_json(app.client.to_json()) == app.client


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["rounds=9"], {"rounds": 9}),
        (["rounds=9 rate=0.25"], {"rounds": 9, "rate": 0.25}),
        (["rounds=9", "on=false"], {"rounds": 9, "on": False}),
        (["rate=1"], {"rate": 1.0}),
        (["nested.deep=2"], {"nested.deep": 2}),
        (["name='two words'"], {"name": "two words"}),
        (["name=plain"], {"name": "plain"}),
        (["name=1.5.0"], {"name": "1.5.0"}),
    ],
)
def test_the_run_configuration_can_be_overridden(
    folder: Path, overrides: list[str], changed: dict[str, Any]
) -> None:
    config = read_app(folder, overrides).config
    assert {key: config[key] for key in changed} == changed
    assert {key: type(config[key]) for key in changed} == {k: type(v) for k, v in changed.items()}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("round=9", "round: is not a key of the app (did you mean rounds?)"),
        ("zzz=9", "zzz: is not a key of the app (known: rounds, rate"),
        ("rounds='9'", "rounds: is '9', and the app's own value is 3 (write a int)"),
        ("on=1", "on: is 1, and the app's own value is True (write a bool)"),
        ("rounds=true", "rounds: is True, and the app's own value is 3"),
        ("rounds=nine", "is 'nine', which is not a TOML value"),
        ("rounds", "has no value"),
        ("=3", "has no value"),
    ],
)
def test_a_wrong_override_is_named(folder: Path, override: str, said: str) -> None:
    (fault,) = faults(folder, override)
    assert said in fault


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path / "nowhere")
    assert fault.endswith("nowhere is not a folder")


def test_a_folder_without_a_project_file_is_named(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path)
    assert "pyproject.toml does not exist" in fault


@pytest.mark.parametrize("content", [b"[project", b"\xff\xfe"])
def test_a_project_file_that_does_not_parse_is_named(folder: Path, content: bytes) -> None:
    (folder / "pyproject.toml").write_bytes(content)
    (fault,) = faults(folder)
    assert "pyproject.toml cannot be read" in fault


def test_a_project_without_a_flower_app_is_named(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool]\nflwr = 3\n")
    (fault,) = faults(folder)
    assert "tool.flwr.app: is missing" in fault


def test_all_faults_come_at_once(folder: Path) -> None:
    edited(folder, 'serverapp = "sound_app.server:app"', 'serverapp = "sound_app.server"')
    edited(folder, "flwr>=1.41", "flwr==1.5.0")
    edited(folder, "rounds = 3", "rounds = [3]")
    (folder / "sound_app" / "client.py").write_text("def broken(:\n")
    found = faults(folder, "rat=1")
    assert len(found) == 5
    assert "components.serverapp: is 'sound_app.server' (write" in found[0]
    assert "project.dependencies: wants flwr==1.5.0, and flwr 1." in found[1]
    assert "tool.flwr.app.config.rounds: is a list" in found[2]
    assert "--run-config rat: is not a key" in found[3]
    assert "client.py: line 1: does not parse: invalid syntax" in found[4]


def test_an_app_without_a_client_is_named(folder: Path) -> None:
    edited(folder, 'clientapp = "sound_app.client:wrapper.app"\n', "")
    assert "tool.flwr.app.components.clientapp: is missing" in faults(folder)[0]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("sound_app.nothing:app", "module sound_app.nothing does not exist in"),
        ("no_such_package_at_all:app", "module no_such_package_at_all does not exist in"),
        ("sound_app.client:other", "client.py defines no other"),
        ("sound_app:app", "__init__.py defines no app"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(folder: Path, reference: str, said: str) -> None:
    edited(folder, "sound_app.client:wrapper.app", reference)
    assert said in faults(folder)[0]


def test_an_installed_module_may_hold_the_app(folder: Path) -> None:
    edited(folder, "sound_app.client:wrapper.app", "json:loads")
    client = read_app(folder).client
    assert isinstance(client, AppSource)
    with pytest.raises(ConfigError, match="json:loads is a function, not a ClientApp"):
        load_client(client)


@pytest.mark.parametrize(
    "source",
    ["from x import app", "import os as app", "def app(): ...", "from y import *", "app, b = 1, 2"],
)
def test_a_name_may_be_defined_in_any_way(folder: Path, source: str) -> None:
    (folder / "sound_app" / "server.py").write_text(source)
    read_app(folder)


def test_the_digest_is_over_every_file_that_makes_the_app(folder: Path) -> None:
    first = app_digest(folder)
    assert first.startswith("sha256:")
    for name in (".hidden", "sound_app/__pycache__/x.pyc", "sound_app/x.pyc", "venv/pyvenv.cfg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("noise")
    assert app_digest(folder) == first
    (folder / "sound_app" / "data.csv").write_text("1")
    second = app_digest(folder)
    assert second != first
    (folder / "sound_app" / "data.csv").rename(folder / "sound_app" / "moved.csv")
    assert app_digest(folder) not in {first, second}


def test_two_apps_with_modules_of_one_name_do_not_mix(folder: Path, tmp_path_factory: Any) -> None:
    server = load_server(read_app(folder))
    other = tmp_path_factory.mktemp("other")
    for path in folder.rglob("*.*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = other / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(path.read_text())
    assert load_server(read_app(folder)) is server
    assert load_server(read_app(other)) is not server
    assert isinstance(load_server(read_app(other)), ServerApp)


def test_an_app_that_exits_while_it_is_imported_is_an_error_and_no_exit(folder: Path) -> None:
    (folder / "sound_app" / "server.py").write_text("import sys\nsys.exit(0)\napp = 1\n")
    with pytest.raises(ConfigError, match=r"server\.py, line 2: SystemExit: 0"):
        load_server(read_app(folder))


def test_ctrl_c_while_an_app_is_imported_is_ctrl_c(folder: Path) -> None:
    (folder / "sound_app" / "server.py").write_text("raise KeyboardInterrupt\napp = 1\n")
    with pytest.raises(KeyboardInterrupt):
        load_server(read_app(folder))


def test_a_server_that_is_something_else_is_refused(folder: Path) -> None:
    (folder / "sound_app" / "server.py").write_text("app = 1\n")
    with pytest.raises(ConfigError, match="is a int, not a ServerApp"):
        load_server(read_app(folder))
