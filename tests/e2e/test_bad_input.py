"""Bad input: one clear error that names file and field, an exit code by kind, nothing half-written.

Each row: a sentence, what lies in the folder, the command, its exit code, and words of its error.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

COMITY = Path(sys.executable).with_name("comity")
CONFIG, UNAVAILABLE, DATA = 2, 5, 6
LONG_LINE = 50 * 2**20

PAIR = b"""
name = "pair"
[[sites]]
name = "north"
file = "north.toml"
[[sites]]
name = "south"
file = "south.toml"
"""
CLIENT = b"from flwr.clientapp import ClientApp\n\napp = ClientApp()\n"
SERVER = b"""
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    pass
"""


def site(name: str, *, features: str = '"age", "dose"', classes: str = '"ill", "well"') -> bytes:
    return f"""
    name = "{name}"
    state = "{name}-state"
    [datasets.patients]
    path = "{name}.csv"
    schema = {{features = [{features}], label = "outcome", classes = [{classes}]}}
    """.encode()


def tables(north: bytes, south: bytes, **south_schema: str) -> dict[str, bytes]:
    return {
        "federation.toml": PAIR,
        "north.toml": site("north"),
        "south.toml": site("south", **south_schema),
        "north.csv": north,
        "south.csv": south,
    }


def app(
    client: bytes = CLIENT, *, wants: str = "flwr", component: str = "app.client:app"
) -> dict[str, bytes]:
    project = f"""
    [project]
    name = "app"
    version = "1"
    dependencies = ["{wants}"]
    [tool.flwr.app]
    publisher = "me"
    [tool.flwr.app.components]
    serverapp = "app.server:app"
    clientapp = "{component}"
    """
    return {
        "pyproject.toml": project.encode(),
        "app/__init__.py": b"",
        "app/client.py": client,
        "app/server.py": SERVER,
    }


OPEN = b"""
name = "a"
[train.rules.train]
arrays = "plain"
metrics = "plain"
"""
BUSY_CLIENT = b"""
from flwr.app import Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    return Message(content=message.content, reply_to=message)
"""
BUSY_SERVER = b"""
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    for _ in range(context.run_config["rounds"]):
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        nodes = grid.get_node_ids()
        grid.send_and_receive([Message(content, node, "train") for node in nodes])
"""


def busy_app() -> dict[str, bytes]:
    files = app(BUSY_CLIENT)
    config = b"    [tool.flwr.app.config]\n    rounds = 1\n"
    project = files["pyproject.toml"] + config
    return {**files, "pyproject.toml": project, "app/server.py": BUSY_SERVER}


@dataclass(frozen=True)
class Case:
    sentence: str
    files: Mapping[str, bytes]
    command: str
    code: int
    words: tuple[str, ...]
    absent: tuple[str, ...] = field(default=())


GOOD = b"age,dose,outcome\n40,1,ill\n50,2,well\n"
CHECK = "config check federation.toml"
CHECK_DATA = "config check federation.toml --data"
RUN = "run . --sites 2"
INGEST = "ingest --site-file site.toml"
LIBRARY = b"""
name = "a"
[collections.library]
folder = "docs"
release = "passages"
askers = ["*"]
"""

CASES = [
    Case(
        "an empty data set",
        tables(GOOD, b"age,dose,outcome\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "the data set is empty"),
    ),
    Case(
        "a file without even a header",
        tables(GOOD, b""),
        CHECK_DATA,
        DATA,
        ("south.csv", "no column 'outcome'"),
    ),
    Case(
        "a label missing at one site",
        tables(GOOD, b"age,dose,outcome\n40,1,well\n"),
        CHECK_DATA,
        DATA,
        ("patients", "site south", "no record with label 'ill'"),
    ),
    Case(
        "a label that nobody agreed on",
        tables(GOOD, GOOD + b"60,3,dead\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "line 4", "'dead'"),
    ),
    Case(
        "a NaN among the features",
        tables(GOOD, GOOD + b"nan,2,well\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "line 4", "'age'", "nan"),
    ),
    Case(
        "an empty cell",
        tables(GOOD, GOOD + b"60,,well\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "line 4", "'dose'"),
    ),
    Case(
        "feature names that differ across sites",
        tables(GOOD, b"age,drug,outcome\n40,1,ill\n", features='"age", "drug"'),
        CHECK,
        CONFIG,
        ("south.toml", "datasets.patients.schema.features", "age, drug", "age, dose"),
    ),
    Case(
        "a column that the schema names and the file lacks",
        tables(GOOD, b"age,drug,outcome\n40,1,ill\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "no column 'dose'"),
    ),
    Case(
        "a table that is not UTF-8",
        tables(GOOD, GOOD + b"60,3,w\xe9ll\n"),
        CHECK_DATA,
        DATA,
        ("south.csv", "UTF-8"),
    ),
    Case(
        "a table with a line of 50 MB",
        tables(GOOD, GOOD + b"6" * LONG_LINE),
        CHECK_DATA,
        DATA,
        ("south.csv", "line 4", "1,048,576"),
        absent=("66666666",),
    ),
    Case(
        "several faults in the data at once",
        tables(b"age,dose,outcome\n", GOOD + b"nan,2,well\n"),
        CHECK_DATA,
        DATA,
        ("2 faults in the data", "north.csv", "south.csv"),
    ),
    Case(
        "duplicate site names",
        {"federation.toml": PAIR.replace(b"south", b"north"), "north.toml": b'name = "north"'},
        CHECK,
        CONFIG,
        ("federation.toml", "sites.1.name", "also the name of sites.0"),
    ),
    Case(
        "unknown configuration keys, in both files",
        {
            "federation.toml": b'name = "f"\nsite = 1\n[[sites]]\nname = "a"\ncolor = 2\n',
            "a.toml": b'name = "a"\n[train]\nmax-reply-byte = 1\n',
        },
        f"{CHECK} a.toml",
        CONFIG,
        (
            "federation.toml: site: is not a known key (did you mean sites?)",
            "federation.toml: sites.0.color: is not a known key",
            "a.toml: train.max-reply-byte: is not a known key (did you mean max-reply-bytes?)",
        ),
    ),
    Case(
        "a configuration file with a syntax error",
        {"federation.toml": b'name = "f"\n[[sites]\n'},
        CHECK,
        CONFIG,
        ("federation.toml, line 2, column 8",),
    ),
    Case(
        "a configuration file that is not UTF-8",
        {"federation.toml": b'name = "f\xe9"\n'},
        CHECK,
        CONFIG,
        ("federation.toml, line 1", "not UTF-8"),
    ),
    Case(
        "a configuration file of 50 MB",
        {"federation.toml": b"#" * LONG_LINE},
        CHECK,
        CONFIG,
        ("federation.toml", "larger than 1048576 bytes"),
    ),
    Case(
        "an app with a syntax error",
        app(b"def broken(:\n"),
        RUN,
        CONFIG,
        ("app/client.py", "line 1", "does not parse"),
    ),
    Case(
        "an app whose pyproject names no ClientApp",
        {**app(), "pyproject.toml": b'[tool.flwr.app.components]\nserverapp = "app.server:app"\n'},
        RUN,
        CONFIG,
        ("pyproject.toml", "tool.flwr.app.components.clientapp", "is missing"),
    ),
    Case(
        "an app whose ClientApp is not there",
        app(b"other = 1\n"),
        RUN,
        CONFIG,
        ("pyproject.toml", "tool.flwr.app.components.clientapp", "defines no app"),
    ),
    Case(
        "an app whose ClientApp is something else",
        app(b"app = 1\n"),
        RUN,
        CONFIG,
        ("app.client:app", "is a int, not a ClientApp"),
    ),
    Case(
        "an app whose module is not there",
        app(component="app.clint:app"),
        RUN,
        CONFIG,
        ("pyproject.toml", "module app.clint does not exist"),
    ),
    Case(
        "an app that wants another flwr",
        app(wants="flwr>=1.5,<1.6"),
        RUN,
        CONFIG,
        ("pyproject.toml", "project.dependencies", "wants flwr", "is installed"),
    ),
    Case(
        "an app that fails when it is imported",
        app(b"import none_such\n" + CLIENT),
        RUN,
        CONFIG,
        ("app.client", "none_such"),
    ),
    Case(
        "a folder without an app",
        {"readme.txt": b""},
        RUN,
        CONFIG,
        ("pyproject.toml does not exist",),
    ),
    Case(
        "a site policy with faults",
        {**app(), "site.toml": b'name = "a"\n[train.rules.train]\narrays = "open"\n'},
        f"{RUN} --site-policy site.toml",
        CONFIG,
        ("site.toml: train.rules.train.arrays: is 'open'",),
    ),
    Case(
        "a new app over one that exists",
        {"my-app/mine.txt": b"mine"},
        "new my-app",
        CONFIG,
        ("my-app exists already",),
    ),
    Case(
        "a new app under a file",
        {"file": b""},
        "new file/my-app",
        UNAVAILABLE,
        ("file/my-app cannot be written",),
    ),
    Case(
        "a document that is not UTF-8",
        {"site.toml": LIBRARY, "docs/good.md": b"Tea is hot.", "docs/bad.md": b"caf\xe9 is hot."},
        INGEST,
        DATA,
        ("1 document was not taken in", "bad.md, byte 3", "not UTF-8"),
    ),
    Case(
        "a document with a line of 50 MB, under a limit that lets it in",
        {
            "site.toml": LIBRARY + b"[limits]\nmax-document-bytes = 100_000_000\n",
            "docs/long.txt": b"x" * LONG_LINE,
        },
        INGEST,
        DATA,
        ("long.txt", "a line of 52428800 bytes", "max-line-bytes"),
    ),
    Case(
        "a document of 50 MB",
        {"site.toml": LIBRARY, "docs/long.txt": b"x" * LONG_LINE},
        INGEST,
        DATA,
        ("long.txt", "larger than 33554432 bytes", "max-document-bytes"),
    ),
    Case(
        "a file in place of the state folder",
        {"site.toml": LIBRARY, "docs/good.md": b"Tea is hot.", "state": b""},
        INGEST,
        CONFIG,
        ("site.toml: state:", "is not a folder"),
    ),
    Case(
        "a folder of documents that is gone",
        {"site.toml": LIBRARY},
        INGEST,
        CONFIG,
        ("site.toml: collections.library.folder:", "docs does not exist"),
    ),
    Case(
        "a question to sites with faults in their files",
        {"federation.toml": PAIR, "north.toml": b'name = "n"\n', "south.toml": b"x = 1\n"},
        "ask tea --federation federation.toml",
        CONFIG,
        ("north.toml: name: is 'n'", "south.toml: x: is not a known key"),
    ),
    Case(
        "a state folder without a state",
        {"state/x": b""},
        "ledger show --state state",
        CONFIG,
        ("state holds no site state",),
    ),
]


def laid_out(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tree(folder: Path) -> dict[str, int]:
    """Files and sizes, but for bytecode and for the state, which journals what was tried."""
    skipped = {"__pycache__", "state"}
    found = (path for path in folder.rglob("*") if not skipped & set(path.parts))
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_bad_input_gets_one_clear_error_and_loses_nothing(tmp_path: Path, case: Case) -> None:
    laid_out(tmp_path, case.files)
    before = tree(tmp_path)
    done = subprocess.run(
        [COMITY, *shlex.split(case.command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == case.code, done.stderr[-2000:]
    for word in case.words:
        assert word in done.stderr
    for word in case.absent:
        assert word not in done.stderr
    assert done.stderr.count("error (") == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 4000
    assert done.stdout == "" or case.command == INGEST
    assert tree(tmp_path) == before


@dataclass(frozen=True)
class MountCase:
    sentence: str
    mount: str
    command: str
    words: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    disk_is_temporary_folder: bool = False


MOUNTED = [
    MountCase(
        "a new app on a full disk",
        "mount -t tmpfs -o size=8k none disk",
        "new disk/my-app",
        ("disk/my-app cannot be written: No space left on device",),
    ),
    MountCase(
        "a new app in a read-only folder",
        "mount -t tmpfs -o ro none disk",
        "new disk/my-app",
        ("disk/my-app cannot be written: Read-only file system",),
    ),
    MountCase(
        "the demonstration on a disk that is too small",
        "mount -t tmpfs -o size=300k none disk",
        "demo --folder disk/demo",
        ("disk/demo/run-1", "No space left on device", "--folder"),
    ),
    MountCase(
        "the demonstration on a disk that fills up while it trains",
        "mount -t tmpfs -o size=900k none disk",
        "demo --folder disk/demo",
        ("disk/demo/run-1", "make room"),
    ),
    MountCase(
        "the journals of a run on a full disk",
        "mount -t tmpfs -o size=64k none disk",
        "run app --sites 2 --site-policy site.toml",
        ("disk/comity-", "try: make room"),
        files={"site.toml": b'name = "a"', **{f"app/{name}": text for name, text in app().items()}},
        disk_is_temporary_folder=True,
    ),
    MountCase(
        "a disk that fills up in the middle of a run",
        "mount -t tmpfs -o size=260k none disk",
        "run app --sites 2 --site-policy site.toml --run-config rounds=300",
        ("exchange 2:", "disk/comity-", "try: make room"),
        files={"site.toml": OPEN, **{f"app/{name}": text for name, text in busy_app().items()}},
        disk_is_temporary_folder=True,
    ),
]


def in_a_mount(folder: Path, case: MountCase, then: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command where `disk` is mounted, in a mount namespace that ends with it."""
    after = then or "find disk >&2"
    script = f"{case.mount} && {COMITY} {case.command}; code=$?; {after}; exit $code"
    place = {"TMPDIR": str(folder / "disk")} if case.disk_is_temporary_folder else {}
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=folder,
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def can_mount(folder: Path) -> bool:
    try:
        probe = MountCase("", "mount -t tmpfs none disk", "--version", ())
        return in_a_mount(folder, probe).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("case", MOUNTED, ids=lambda case: case.sentence)
def test_a_disk_that_takes_nothing_gets_one_clear_error_and_nothing_half_written(
    tmp_path: Path, case: MountCase
) -> None:
    laid_out(tmp_path, case.files)
    (tmp_path / "disk").mkdir()
    if not can_mount(tmp_path):
        pytest.skip("no mount namespaces here")
    done = in_a_mount(tmp_path, case)
    assert done.returncode == UNAVAILABLE, done.stderr
    for word in case.words:
        assert word in done.stderr
    assert done.stderr.count("error (") == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("\ndisk\n"), "something was left on the disk"


ON_DISK = LIBRARY.replace(b'name = "a"', b'name = "a"\nstate = "disk/state"')
MAKE_ROOM = "mount -o remount,size=64m disk"


@pytest.mark.parametrize("size_kib", [4, 48, 96, 160])
def test_a_state_folder_on_a_full_disk_works_again_once_there_is_room(
    tmp_path: Path, size_kib: int
) -> None:
    (tmp_path / "disk").mkdir()
    if not can_mount(tmp_path):
        pytest.skip("no mount namespaces here")
    text = b"The kettle is descaled every three months with citric acid. " * 4000
    laid_out(tmp_path, {"site.toml": ON_DISK, "docs/kettle.txt": text.replace(b". ", b".\n\n")})
    mount = f"mount -t tmpfs -o size={size_kib}k none disk"
    case = MountCase("", mount, INGEST, ())
    again = f"echo AGAIN >&2; {MAKE_ROOM} && {COMITY} {INGEST} && exit 42"
    done = in_a_mount(tmp_path, case, then=again)
    first, _, second = done.stderr.partition("AGAIN\n")
    assert first.count("error (unavailable)") == 1, first
    assert "disk/state" in first
    assert "Traceback" not in done.stderr
    assert (done.returncode, second) == (42, "")
    assert "passages written" in done.stdout


def test_a_read_only_state_folder_gets_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if not can_mount(tmp_path):
        pytest.skip("no mount namespaces here")
    laid_out(tmp_path, {"site.toml": ON_DISK, "docs/tea.md": b"Tea is hot."})
    for content in ("mkdir disk/state", "true"):
        mount = f"mount -t tmpfs none disk && {content} && mount -o remount,ro disk"
        done = in_a_mount(tmp_path, MountCase("", mount, INGEST, ()))
        assert done.returncode == UNAVAILABLE, done.stderr
        assert done.stderr.count("error (unavailable)") == 1
        assert "disk/state" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_fault_is_told_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMITY, "new", "bad name!"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == CONFIG
    assert done.stderr.count("is not a name") == 1
    assert done.stderr.count("lower-case letters") == 1
