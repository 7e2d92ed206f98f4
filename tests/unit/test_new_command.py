"""`comity new`: a whole app or nothing."""

from __future__ import annotations

import ast
import json
import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli.new import TEMPLATES, command
from comity.errors import ComityError, ConfigError, UnavailableError

FLOWER_TEMPLATES = [name for name in TEMPLATES if name != "ask"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def error_of(result: Result) -> ComityError:
    assert isinstance(result.exception, ComityError)
    return result.exception


def paths_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("template", FLOWER_TEMPLATES)
def test_a_flower_template_is_a_whole_app_under_the_name_given(
    tmp_path: Path, template: str
) -> None:
    result = run(tmp_path / "my-app", "--template", template)
    assert result.exit_code == 0
    assert f"comity run {tmp_path / 'my-app'} --sites 4" in result.output
    project = tomllib.loads((tmp_path / "my-app" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-app"
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "my_app.server_app:app",
        "clientapp": "my_app.client_app:app",
    }
    files = sorted((tmp_path / "my-app" / "my_app").glob("*.py"))
    assert [file.name for file in files] == [
        "__init__.py",
        "client_app.py",
        "server_app.py",
        "task.py",
    ]
    for file in files:
        text = file.read_text()
        assert ast.get_docstring(ast.parse(text))
        assert len(text.splitlines()) <= 80
    for file in (tmp_path / "my-app").rglob("*.*"):
        assert file.is_dir() or "$" not in file.read_text()


def test_nothing_but_the_app_is_left_in_the_parent_folder(tmp_path: Path) -> None:
    run(tmp_path / "deep" / "app-a")
    assert paths_in(tmp_path) >= {"deep", "deep/app-a", "deep/app-a/pyproject.toml"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["app-a"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "app-a").mkdir()
    assert run(tmp_path / "app-a").exit_code == 0
    assert (tmp_path / "app-a" / "README.md").exists()


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_exists_is_left_alone(tmp_path: Path, there: str) -> None:
    target = tmp_path / "app-a"
    if there == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    before = paths_in(tmp_path)
    error = error_of(run(target))
    assert error.exit_code == 2
    assert "exists already" in error.message
    assert paths_in(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My_App", "is not a name"),
        ("-app", "is not a name"),
        ("..", "is not a name"),
        ("a" * 64, "is not a name"),
        ("3d", "not a name that Python can import"),
        ("class", "not a name that Python can import"),
        ("numpy", "already the name of an installed Python package"),
        ("json", "already the name of an installed Python package"),
    ],
)
def test_a_name_that_would_not_work_is_refused(tmp_path: Path, name: str, words: str) -> None:
    error = error_of(run("--", tmp_path / name))
    assert isinstance(error, ConfigError)
    assert words in error.message
    assert [fault.path for fault in error.faults] == ["NAME"]
    assert error.hint not in error.message
    assert paths_in(tmp_path) == set()


def test_a_folder_of_documents_may_bear_any_name(tmp_path: Path) -> None:
    assert run(tmp_path / "3d", "--template", "ask").exit_code == 0
    assert 'name = "3d"' in (tmp_path / "3d" / "federation.toml").read_text()


def test_a_parent_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = error_of(run(tmp_path / "file" / "app-a"))
    assert isinstance(error, UnavailableError)
    assert "cannot be written" in error.message
    assert paths_in(tmp_path) == {"file"}


def test_the_app_is_readable_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run(tmp_path / "app-a")
    finally:
        os.umask(before)
    assert (tmp_path / "app-a").stat().st_mode & 0o777 == 0o755


def test_json_names_the_files_and_the_next_commands(tmp_path: Path) -> None:
    document = json.loads(run(tmp_path / "qa", "--template", "ask", "--json").output)
    assert "federation.toml" in document["files"]
    assert set(document["files"]) == {
        path for path in paths_in(tmp_path / "qa") if (tmp_path / "qa" / path).is_file()
    }
    assert document["next"][1].startswith("comity ask --federation ")


def test_a_template_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path / "app-a", "--template", "keras").exit_code == 2
