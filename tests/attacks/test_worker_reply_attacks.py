"""An app's process sends whatever it likes: the site drops out, the process ends, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from comity.adapters.flower.app import AppSource
from comity.adapters.flower.calls import AppFailure
from comity.adapters.flower.channel import receive_frame, send_frame, socket_pair
from comity.adapters.flower.crew import Call, Finished
from comity.adapters.flower.private_names import enter_run, name_message
from comity.adapters.flower.processes import CrewSettings, ProcessCrew
from comity.adapters.flower.segments import create_segment
from comity.adapters.flower.worker_process import WORKER_NUMBERS, WorkerProcess
from comity.errors import ConfigError, UnavailableError

OWN = WORKER_NUMBERS
LIMIT = 1 << 20
Sent = tuple[bytes, list[int]]


class Puppet:
    """A worker that the test moves: the far end of its socket, and a process to be killed."""

    def __init__(self) -> None:
        self.far: list[socket.socket] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, writer: int, settings: CrewSettings) -> WorkerProcess:
        here, there = socket_pair()
        process = subprocess.Popen(["sleep", "60"], process_group=0)
        self.far.append(there)
        self.processes.append(process)
        first = writer * WORKER_NUMBERS
        assert settings.max_bytes == LIMIT
        return WorkerProcess(process, here, range(first, first + WORKER_NUMBERS))


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    made = Puppet()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def crew(puppet: Puppet) -> Iterator[ProcessCrew]:
    made = ProcessCrew(
        AppSource("", "m:app"), 1, {}, CrewSettings(1, max_bytes=LIMIT), puppet.spawn
    )
    made.start()
    yield made
    made.close()


def asked(crew: ProcessCrew, puppet: Puppet) -> None:
    """Brings the crew to where a worker owes the answer to call 1."""
    send_frame(puppet.far[0], b'{"ready": true}')
    crew.wait_ready()
    enter_run(1)
    content = RecordDict({"a": ArrayRecord({"x": Array(np.zeros(4))})})
    message = Message(content, 2, "train")
    name_message(message, "m-1")
    crew.submit([Call(1, 2, {}, message, b"s" * 32)])
    for _ in range(2):
        received = receive_frame(puppet.far[0], max_bytes=LIMIT)
        assert received is not None


def frame(fds: Callable[[], list[int]] = list, **fields: Any) -> Sent:
    base = {"call": 1, "segments": [], "content": [], "content_segment": 0, "state": []}
    return json.dumps(base | {"state_segment": 0} | fields).encode(), fds()


def rows(start: int, length: int) -> list[Any]:
    return [["a", "arrays", [["x", "float64", [4], "numpy.ndarray", start, length]]]]


def sealed() -> list[int]:
    return [os.dup(create_segment(OWN, 100).fd)]


def unsealed() -> list[int]:
    fd = os.memfd_create("attack")
    os.ftruncate(fd, 4096)
    return [fd]


def unreadable() -> list[int]:
    (fd,) = sealed()
    return [os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)]


def huge() -> list[int]:
    return [os.dup(create_segment(OWN, 2 * LIMIT).fd)]


ATTACKS: dict[str, Callable[[], Sent]] = {
    "bytes that are no JSON": lambda: (b"\x80\x04pickle", []),
    "JSON that nests without end": lambda: (b"[" * 10_000, []),
    "an answer to a call of another site": lambda: frame(call=2),
    "an answer to no call": lambda: (b"{}", []),
    "a record of an unknown kind": lambda: frame(content=[["a", "pickle", []]]),
    "content that is missing": lambda: frame(content=None),
    "array bytes without a segment": lambda: frame(content=rows(0, 10), content_segment=OWN + 5),
    "a segment of the coordinator": lambda: frame(content=rows(0, 10), content_segment=1),
    "a segment that is no number": lambda: frame(content_segment="1"),
    "a segment number of the coordinator": lambda: frame(sealed, segments=[7]),
    "a segment number of another worker": lambda: frame(sealed, segments=[9 * WORKER_NUMBERS]),
    "one number for two segments": lambda: frame(lambda: sealed() + sealed(), segments=[OWN, OWN]),
    "segments without descriptors": lambda: frame(segments=[OWN]),
    "descriptors without segments": lambda: frame(sealed),
    "segments that are no list": lambda: frame(segments={"a": 1}),
    "memory that can shrink while it is read": lambda: frame(unsealed, segments=[OWN]),
    "memory beyond the limit": lambda: frame(huge, segments=[OWN]),
    "bytes beyond the end of a segment": lambda: frame(
        sealed, segments=[OWN], content=rows(60_000, 10_000), content_segment=OWN
    ),
    "bytes before the start of a segment": lambda: frame(
        sealed, segments=[OWN], content=rows(-8, 8), content_segment=OWN
    ),
    "state in a segment of the coordinator": lambda: frame(state_segment=1),
    "an error of another form": lambda: frame(app_error=7),
    "an error code that is no number": lambda: frame(app_error=["x", "y"]),
    "an error code that is a fraction": lambda: frame(app_error=[2.5, "y"]),
    "an error code without end": lambda: (
        frame()[0].replace(b'"call": 1', b'"call": 1, "app_error": [Infinity, "y"]'),
        [],
    ),
    "an error code that is a truth": lambda: frame(app_error=[True, "y"]),
    "a record as an error code": lambda: frame(app_error=[1 << 31, "y"]),
    "an error text that is no text": lambda: frame(app_error=[2, ["y"]]),
    "that it refuses, in the middle of a run": lambda: (b'{"refused": "no", "hint": "x"}', []),
    "that it is ready, a second time": lambda: (b'{"ready": true}', []),
    "a number beyond all numbers": lambda: frame(content=[["m", "metrics", [["x", "1e999"]]]]),
    "a shape beyond all shapes": lambda: frame(
        content=[["a", "arrays", [["x", "float64", [1.5], "numpy.ndarray", 0, 0]]]]
    ),
    "memory that cannot be read": lambda: frame(unreadable, segments=[OWN]),
    "a frame beyond the limit": lambda: (b'{"x": "' + b"x" * LIMIT + b'"}', []),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_worker_that_sends(attack: str, crew: ProcessCrew, puppet: Puppet) -> None:
    asked(crew, puppet)
    body, fds = ATTACKS[attack]()
    send_frame(puppet.far[0], body, fds)
    finished = crew.wait(10.0)
    assert [(done.number, done.outcome) for done in finished] == [
        (1, AppFailure("Malformed", crashed=True))
    ]
    assert puppet.processes[0].returncode is not None


def test_a_worker_that_sends_a_frame_which_is_no_file(crew: ProcessCrew, puppet: Puppet) -> None:
    asked(crew, puppet)
    read, write = os.pipe()
    socket.send_fds(puppet.far[0], [b"f"], [read])
    assert [done.outcome for done in crew.wait(10.0)] == [AppFailure("Malformed", crashed=True)]
    os.close(read)
    os.close(write)


def test_a_worker_that_answers_before_it_is_ready(crew: ProcessCrew, puppet: Puppet) -> None:
    send_frame(puppet.far[0], frame()[0])
    crew.wait(10.0)
    assert puppet.processes[0].returncode is not None


def handed(puppet: Puppet, index: int) -> list[dict[str, Any]]:
    """What worker `index` was sent after the app."""
    frames = []
    puppet.far[index].settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while (received := receive_frame(puppet.far[index], max_bytes=LIMIT)) is not None:
            frames.append(json.loads(received[0]))
    return [frame for frame in frames if "app" not in frame]


@pytest.fixture
def pair(puppet: Puppet) -> Iterator[ProcessCrew]:
    """Two workers; the first is in call 1 with call 3 behind it, the second is in call 2."""
    made = ProcessCrew(
        AppSource("", "m:app"), 1, {}, CrewSettings(2, max_bytes=LIMIT), puppet.spawn
    )
    made.start()
    for far in puppet.far:
        send_frame(far, b'{"ready": true}')
    made.wait_ready()
    made.wait(1.0)
    enter_run(1)
    calls = []
    for number in (1, 2, 3):
        message = Message(RecordDict(), 1 + number, "train")
        name_message(message, f"m-{number}")
        calls.append(Call(number, 1 + number, {}, message, b"s" * 32))
    made.submit(calls)
    assert [one["call"] for one in handed(puppet, 0)] == [1, 3]
    assert [one["call"] for one in handed(puppet, 1)] == [2]
    send_frame(puppet.far[1], frame(call=2)[0])
    assert [done.number for done in made.wait(10.0)] == [2]
    yield made
    made.close()


def test_what_waits_behind_a_long_call_goes_to_a_worker_that_idles(
    pair: ProcessCrew, puppet: Puppet
) -> None:
    assert handed(puppet, 0) == [{"back": 3}]
    assert [one["call"] for one in handed(puppet, 1)] == [3]
    send_frame(puppet.far[1], frame(call=3)[0])
    assert [done.number for done in pair.wait(10.0)] == [3]
    pair.abandon([1])
    assert puppet.processes[0].returncode is not None
    assert puppet.processes[1].poll() is None


def test_a_call_that_was_begun_before_it_was_asked_back_is_answered_once(
    pair: ProcessCrew, puppet: Puppet
) -> None:
    send_frame(puppet.far[0], frame(call=1)[0])
    assert [done.number for done in pair.wait(10.0)] == [1]
    made = create_segment(OWN, 1000)
    body, _ = frame(call=3, segments=[OWN], state_segment=OWN)
    send_frame(puppet.far[0], body, [made.fd])
    assert pair.wait(10.0) == []
    send_frame(puppet.far[1], frame(call=3)[0])
    assert [done.number for done in pair.wait(10.0)] == [3]
    assert puppet.processes[0].poll() is None


def test_a_call_can_be_given_back_before_the_one_before_it_ends(
    pair: ProcessCrew, puppet: Puppet
) -> None:
    send_frame(puppet.far[0], b'{"call": 3, "back": true}')
    assert pair.wait(10.0) == []
    send_frame(puppet.far[0], frame(call=1)[0])
    assert [done.number for done in pair.wait(10.0)] == [1]


@pytest.mark.parametrize(
    "answer",
    [
        {"call": 3},
        {"call": 1, "back": True},
        {"call": 7, "back": True},
        {"call": "3", "back": True},
        {"call": [3], "back": True},
        {"call": True, "back": True},
    ],
)
def test_a_worker_that_gives_back_what_it_was_not_asked_for(
    pair: ProcessCrew, puppet: Puppet, answer: dict[str, object]
) -> None:
    send_frame(puppet.far[0], json.dumps(answer).encode())
    assert pair.wait(10.0) == [Finished(1, AppFailure("Malformed", crashed=True))]


def test_a_worker_that_hangs_in_what_it_should_give_back_is_ended_with_the_call(
    pair: ProcessCrew, puppet: Puppet
) -> None:
    send_frame(puppet.far[0], frame(call=1)[0])
    pair.wait(10.0)
    pair.abandon([3])
    assert [process.poll() is None for process in puppet.processes[:2]] == [False, False]


def test_an_honest_worker_is_not_taken_for_an_attacker(crew: ProcessCrew, puppet: Puppet) -> None:
    asked(crew, puppet)
    made = create_segment(OWN, 1000)
    data = Array(np.arange(4.0)).data
    made.map[: len(data)] = data
    body, _ = frame(segments=[OWN], content=rows(0, len(data)), content_segment=OWN)
    send_frame(puppet.far[0], body, [made.fd])
    (done,) = crew.wait(10.0)
    content: Any = done.outcome
    assert content["a"]["x"].numpy().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert puppet.processes[0].poll() is None


def test_a_worker_that_closes_what_it_lent_leaves_the_reply_readable(
    crew: ProcessCrew, puppet: Puppet
) -> None:
    asked(crew, puppet)
    made = create_segment(OWN, 1000)
    data = Array(np.arange(4.0)).data
    made.map[: len(data)] = data
    fields: dict[str, Any] = {
        "segments": [OWN],
        "content": rows(0, len(data)),
        "content_segment": OWN,
    }
    body, _ = frame(**fields, closed=["x", 3])
    send_frame(puppet.far[0], body, [made.fd])
    (done,) = crew.wait(10.0)
    puppet.processes[0].kill()
    puppet.far[0].close()
    crew.wait(10.0)
    content: Any = done.outcome
    assert content["a"]["x"].numpy().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_an_app_that_is_refused_while_loading_is_an_error(
    crew: ProcessCrew, puppet: Puppet
) -> None:
    send_frame(puppet.far[0], b'{"refused": "no module", "hint": "install it"}')
    with pytest.raises(ConfigError, match="no module"):
        crew.wait_ready()


def test_workers_that_die_again_and_again_are_not_started_for_ever(
    crew: ProcessCrew, puppet: Puppet
) -> None:
    puppet.far[0].close()

    def die_often() -> None:
        for _ in range(10):
            crew.wait(1.0)
            crew.start()
            puppet.far[-1].close()

    with pytest.raises(UnavailableError, match="while it loaded the app"):
        die_often()


def test_an_app_that_never_loads_ends_the_wait(puppet: Puppet) -> None:
    settings = CrewSettings(1, max_bytes=LIMIT, start_timeout_s=0.05)
    crew = ProcessCrew(AppSource("", "m:app"), 1, {}, settings, puppet.spawn)
    crew.start()
    with pytest.raises(UnavailableError, match=r"not loaded within 0\.05 s"):
        crew.wait_ready()
    crew.close()
