from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "comity"


def load_rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "house_rules", Path(__file__).with_name("house_rules.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = load_rules()


@pytest.mark.parametrize("rule", RULES.RULES, ids=lambda rule: rule.__name__)
def test_our_own_tree_keeps_the_rule(rule: Callable[[Path], Iterator[tuple[str, str]]]) -> None:
    assert list(rule(SOURCE)) == []


def appended(file: str, text: str) -> Callable[[Path], None]:
    def plant(tree: Path) -> None:
        path = tree / file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{before}\n{text}\n", encoding="utf-8")

    return plant


LONG_BODY = "\n".join(f"    x{number} = {number}" for number in range(51))
ARGUMENTS = ", ".join("abcdefg")

AGAINST_RULES = {
    "a module of more than 300 lines": (
        appended("core/long.py", "\n".join(f"x{n} = {n}" for n in range(301))),
        "budget_faults",
    ),
    "a function of more than 50 lines": (
        appended("core/aggregate/mean.py", f"def long() -> None:\n{LONG_BODY}"),
        "budget_faults",
    ),
    "a function of seven arguments": (
        appended("core/aggregate/mean.py", f"def wide({ARGUMENTS}): ..."),
        "budget_faults",
    ),
    "a module named utils": (appended("services/utils.py", ""), "name_faults"),
    "a second owner of the seal": (
        appended("services/ask.py", "from comity.release import claim_seal"),
        "seal_faults",
    ),
    "a broad catch": (
        appended("services/ask.py", "try:\n    pass\nexcept Exception:\n    pass"),
        "catch_faults",
    ),
    "a bare catch": (
        appended("services/ask.py", "try:\n    pass\nexcept:\n    pass"),
        "catch_faults",
    ),
    "a print": (appended("services/ask.py", "print('here')"), "print_faults"),
    "a child's entry that grew": (
        appended("adapters/flower/worker.py", "\n".join(f"x{n} = {n}" for n in range(31))),
        "entry_faults",
    ),
}


@pytest.mark.parametrize("sentence", AGAINST_RULES)
def test_a_planted_violation_is_caught(sentence: str, tmp_path: Path) -> None:
    plant, rule = AGAINST_RULES[sentence]
    tree = tmp_path / "comity"
    shutil.copytree(SOURCE, tree)
    plant(tree)
    assert list(getattr(RULES, rule)(tree)) != []


AGAINST_FLOORS = {
    "a service that imports an adapter": (
        appended("services/ask.py", "import comity.adapters.store.journal"),
        "A floor uses only the floors below it",
    ),
    "the core importing a service": (
        appended("core/aggregate/mean.py", "import comity.services.gate"),
        "A floor uses only the floors below it",
    ),
    "a module outside every floor": (
        appended("utils.py", ""),
        "comity.utils",
    ),
    "a room of the core that knows another": (
        appended("core/aggregate/mean.py", "import comity.core.policy.rule"),
        "Rooms of the core do not know each other",
    ),
    "an adapter that knows another": (
        appended("adapters/train/linear.py", "import comity.adapters.store.journal"),
        "Adapters do not know each other",
    ),
    "randomness in the core": (
        appended("core/aggregate/mean.py", "import random"),
        "The core does no I/O",
    ),
    "flwr outside its room": (
        appended("services/train.py", "import flwr"),
        "Flower stands in one room",
    ),
    "a cycle": (
        appended("errors.py", "import comity.ids"),
        "A floor uses only the floors below it",
    ),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command"
    )
    return subprocess.run(
        [sys.executable, "-c", f"{code}; lint_imports_command(['--no-cache'])"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("sentence", [None, *AGAINST_FLOORS])
def test_the_floors_hold_and_a_planted_violation_breaks_them(
    sentence: str | None, copied: Path
) -> None:
    tree = copied / "src" / "comity"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns("__pycache__"))
    if sentence is None:
        done = lint_imports(copied)
        assert done.returncode == 0, done.stdout
        return
    plant, words = AGAINST_FLOORS[sentence]
    plant(tree)
    done = lint_imports(copied)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


HEAVY = ("numpy", "pydantic", "rich", "flwr", "sklearn", "torch", "tantivy", "cryptography")


@pytest.mark.parametrize("statement", ["import comity", "import comity.cli.main"])
def test_what_starts_first_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(*(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_are_sorted_and_all_there() -> None:
    import comity  # noqa: PLC0415 - the subject

    assert comity.__all__ == sorted(comity.__all__, key=str)
    assert all(getattr(comity, name) is not None for name in comity.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = comity.nothing


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = ("/work/" + "main", "/work/" + "shared", "/opt/" + "wheels", "pypi." + "org")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [word for word in words if word in text], name
