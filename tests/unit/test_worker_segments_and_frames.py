from __future__ import annotations

import gc
import os
import socket

import pytest

from comity.adapters.flower.channel import (
    INLINE_BYTES,
    receive_frame,
    send_frame,
    socket_pair,
)
from comity.adapters.flower.segments import (
    PAGE,
    Arena,
    Lease,
    allow_descriptors,
    create_segment,
    open_segment,
)
from comity.errors import Malformed

LIMIT = 1 << 20


def test_a_segment_is_read_where_it_was_written() -> None:
    made = create_segment(1, 10)
    made.map[:3] = b"abc"
    opened = open_segment(1, os.dup(made.fd), max_bytes=LIMIT)
    assert bytes(opened.view(0, 3)) == b"abc"
    assert opened.size == made.size == PAGE
    with pytest.raises(TypeError):
        opened.map[0] = 1
    opened.close()
    made.close()


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, PAGE + 1), (PAGE, 1), (0, -1)])
def test_a_view_outside_its_segment_is_malformed(start: int, length: int) -> None:
    with pytest.raises(Malformed):
        create_segment(1, 10).view(start, length)


def test_memory_that_could_shrink_under_the_reader_is_not_mapped() -> None:
    fd = os.memfd_create("unsealed")
    os.ftruncate(fd, 100)
    with pytest.raises(Malformed, match="not sealed"):
        open_segment(1, fd, max_bytes=LIMIT)


def test_what_is_no_memory_file_at_all_is_not_mapped() -> None:
    with pytest.raises(Malformed):
        open_segment(1, os.open("/dev/null", os.O_RDONLY), max_bytes=LIMIT)


def test_a_segment_larger_than_allowed_is_not_mapped() -> None:
    made = create_segment(1, 10 * PAGE)
    with pytest.raises(Malformed):
        open_segment(1, os.dup(made.fd), max_bytes=PAGE)


def test_freed_segments_are_used_again_smallest_first() -> None:
    arena = Arena(100)
    large, small = arena.take(3 * PAGE), arena.take(10)
    assert arena.written(small.number) is small
    assert arena.free(large.number) is None
    assert arena.free(small.number) is None
    assert arena.free(small.number) is None
    assert arena.take(5) is small
    assert arena.take(2 * PAGE) is large
    assert arena.take(1).number == 102
    arena.close()


def test_an_arena_keeps_no_more_idle_memory_than_it_may() -> None:
    arena = Arena(1, max_idle_bytes=PAGE)
    first, second = arena.take(10), arena.take(10)
    assert arena.free(first.number) is None
    assert arena.free(second.number) is second
    arena.close()


def test_a_segment_comes_back_when_the_last_reader_is_gone() -> None:
    back: list[int] = []
    lease = Lease(create_segment(7, 10), back.append)
    other = lease
    del lease
    gc.collect()
    assert back == []
    del other
    assert back == [7]


def test_closing_a_segment_that_is_still_read_keeps_the_bytes() -> None:
    made = create_segment(1, 10)
    made.map[:3] = b"abc"
    view = made.view(0, 3)
    made.close()
    assert bytes(view) == b"abc"


def test_the_limit_on_open_files_is_lifted() -> None:
    import resource  # noqa: PLC0415 - this test alone

    allow_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(hard, 1 << 16) or hard == resource.RLIM_INFINITY


@pytest.mark.parametrize("size", [0, 100, INLINE_BYTES, INLINE_BYTES + 1, 500_000])
def test_a_frame_arrives_whole_with_its_descriptors(size: int) -> None:
    here, there = socket_pair()
    read, write = os.pipe()
    send_frame(here, b"x" * size, [write])
    received = receive_frame(there, max_bytes=LIMIT)
    assert received is not None
    frame, fds = received
    assert frame == b"x" * size
    os.write(fds[0], b"!")
    assert os.read(read, 1) == b"!"
    for fd in (read, write, *fds):
        os.close(fd)


def test_the_end_is_none() -> None:
    here, there = socket_pair()
    here.close()
    assert receive_frame(there, max_bytes=LIMIT) is None
    with pytest.raises(OSError, match="pipe"):
        send_frame(there, b"late")


def raw(packet: bytes, fds: list[int]) -> socket.socket:
    here, there = socket_pair()
    socket.send_fds(here, [packet], fds)
    return there


def test_a_frame_larger_than_allowed_is_malformed_and_not_read() -> None:
    here, there = socket_pair()
    send_frame(here, b"x" * 50_000)
    with pytest.raises(Malformed, match="larger than 40000"):
        receive_frame(there, max_bytes=40_000)


@pytest.mark.parametrize("packet", [b"f", b"x", b"file", b"\x00"])
def test_a_packet_of_no_known_form_is_malformed(packet: bytes) -> None:
    with pytest.raises(Malformed):
        receive_frame(raw(packet, []), max_bytes=LIMIT)
