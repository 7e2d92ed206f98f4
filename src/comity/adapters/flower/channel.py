"""Frames over a Unix socket pair: whole or not at all, with file descriptors beside them.

Small frames travel in the packet. A large one lies in an anonymous file that travels as the first
descriptor, so that neither side ever blocks on a full socket buffer for long.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from comity.errors import Malformed

INLINE_BYTES: Final = 16 * 1024
_INLINE: Final = b"i"
_IN_FILE: Final = b"f"
_MAX_DESCRIPTORS: Final = 64


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends that keep packet borders."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_frame(sock: socket.socket, frame: bytes, fds: Sequence[int] = ()) -> None:
    """Sends one frame; `fds` stay open here.

    Raises:
        OSError: The other side is gone.
    """
    if len(frame) <= INLINE_BYTES:
        socket.send_fds(sock, [_INLINE + frame], list(fds))
        return
    fd = os.memfd_create("comity-frame", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(frame)
        socket.send_fds(sock, [_IN_FILE], [fd, *fds])
    finally:
        os.close(fd)


def receive_frame(sock: socket.socket, *, max_bytes: int) -> tuple[bytes, list[int]] | None:
    """The next frame and its descriptors, which the caller must close; None at the end.

    Raises:
        Malformed: The frame is larger than `max_bytes` or has no known form.
    """
    try:
        packet, fds, _, _ = socket.recv_fds(sock, INLINE_BYTES + 1, _MAX_DESCRIPTORS)
    except ConnectionError:
        return None
    if not packet:
        return None
    if packet[:1] == _INLINE:
        return packet[1:], fds
    if packet != _IN_FILE or not fds:
        close_all(fds)
        raise Malformed("a packet has no known form")
    try:
        return _read_whole(fds[0], max_bytes), fds[1:]
    except Malformed:
        close_all(fds[1:])
        raise
    finally:
        os.close(fds[0])


def _read_whole(fd: int, max_bytes: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > max_bytes:
        raise Malformed(f"a frame of {size} bytes is larger than {max_bytes}")
    try:
        return os.pread(fd, size, 0)
    except OSError as error:  # a pipe, a folder, a file that may not be read
        raise Malformed(f"a frame cannot be read: {error.strerror}") from error


def close_all(fds: Sequence[int]) -> None:
    """Closes descriptors that came with a frame which is not used."""
    for fd in fds:
        os.close(fd)
