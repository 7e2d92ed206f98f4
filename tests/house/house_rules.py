"""The rules of the house, as functions over a source tree; the tests run them over ours and over
trees with a planted violation."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE = 300
MAX_FUNCTION = 50
MAX_ARGUMENTS = 6
FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "base", "manager"})
SEAL_OWNERS = frozenset({"release.py", "services/gate.py"})
BROAD_CATCHES = frozenset(
    {
        "adapters/flower/engine.py",  # the wall around a call into an app: the ServerApp
        "adapters/flower/calls.py",  # the same wall: the ClientApp
        "adapters/flower/app.py",  # the same wall: importing an app
    }
)
CHILD_ENTRIES = {"adapters/flower/worker.py": 30}

Fault = tuple[str, str]


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith("templates/"):
            yield name, path


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def budget_faults(root: Path) -> Iterator[Fault]:
    for name, path in modules(root):
        if code_lines(path) > MAX_MODULE:
            yield name, f"{code_lines(path)} code lines"
        for node in functions(path):
            if function_lines(node) > MAX_FUNCTION:
                yield name, f"{node.name} has {function_lines(node)} lines"
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            count = len([argument for argument in every if argument.arg not in {"self", "cls"}])
            if count > MAX_ARGUMENTS:
                yield name, f"{node.name} has {count} arguments"


def name_faults(root: Path) -> Iterator[Fault]:
    for name, _ in modules(root):
        if FORBIDDEN_NAMES & set(re.split(r"[/._]", name)):
            yield name, "a name that says nothing"


def seal_faults(root: Path) -> Iterator[Fault]:
    for name, path in modules(root):
        words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        if name not in SEAL_OWNERS and words & {"claim_seal", "_SEAL", "Seal"}:
            yield name, "names the seal"


def catch_faults(root: Path) -> Iterator[Fault]:
    for name, path in modules(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler) or name in BROAD_CATCHES:
                continue
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue  # cleans up and lets the error pass
            caught = set() if node.type is None else set(re.findall(r"\w+", ast.unparse(node.type)))
            if node.type is None or caught & {"Exception", "BaseException"}:
                yield name, f"a broad catch at line {node.lineno}"


def print_faults(root: Path) -> Iterator[Fault]:
    for name, path in modules(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                yield name, f"print at line {node.lineno}"


def entry_faults(root: Path) -> Iterator[Fault]:
    for name, limit in CHILD_ENTRIES.items():
        if code_lines(root / name) > limit:
            yield name, f"a child's entry of {code_lines(root / name)} lines"


RULES = (
    budget_faults,
    name_faults,
    seal_faults,
    catch_faults,
    print_faults,
    entry_faults,
)
