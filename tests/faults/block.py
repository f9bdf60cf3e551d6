"""A block device that notes every write and flush, under a real ext4, and the images that a power cut would leave.

The device is an NBD server of ours in this process (nbdkit's log filter notes where a write went, not what it wrote);
nbdfuse shows it as a file, a loop device makes a disk of that file, and the kernel's ext4 stands on it. So an fdatasync
of the program under test arrives here as a flush. Needs root, /dev/fuse and loop devices.

What a power cut leaves: everything before the last flush that was answered, and of the writes after it any part, torn
at a sector.
"""

import os
import random
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

SECTOR = 512
SIZE_BYTES = 24 * 1024 * 1024
NEEDS = {
    "nbdfuse": "libnbd-bin",
    "fusermount3": "fuse3",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "mount": "mount",
}
_WAIT_S = 120.0

# The NBD protocol, "Fixed newstyle negotiation" and "Transmission phase".
_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x3E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_ABORT, _OPT_INFO, _OPT_GO = 2, 6, 7
_REP_ACK, _REP_INFO, _REP_UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_WRITE = 1
_FUA = 1
_EIO = 5


class Missing(RuntimeError):
    """This place cannot run it; the message says what it needs."""


def check_can_run() -> None:
    """Raise Missing, naming what to install or to permit."""
    absent = sorted({package for program, package in NEEDS.items() if shutil.which(program, path=_path()) is None})
    if absent:
        raise Missing(f"the block-level test needs: apt-get install {' '.join(absent)}")
    if os.geteuid() != 0:
        raise Missing("the block-level test mounts file systems: run it as root")
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            raise Missing(f"the block-level test needs {device}: modprobe {'fuse' if 'fuse' in device else 'loop'}")


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str | Path) -> str:
    """A command that must succeed; returns its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _path()}, timeout=_WAIT_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Write(NamedTuple):
    offset: int
    data: bytes


class Recorder:
    """The server: one client, one request at a time. journal: writes in the order they came, None for a flush."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.journal: list[Write | None] = []
        self.failing = False
        self.content = bytearray(size)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_WAIT_S)
        if self.failure is not None:
            raise self.failure

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                with client:
                    self._negotiate(client)
                    self._answer_all(client)
            except (EOFError, ConnectionError):
                continue
            except BaseException as error:  # noqa: BLE001 - told to the test by close()
                self.failure = error
                return

    def _negotiate(self, client: socket.socket) -> None:
        client.sendall(_GREETING.pack(b"NBDMAGIC", b"IHAVEOPT", _FIXED_NEWSTYLE | _NO_ZEROES))
        _take(client, 4)
        while True:
            _, option, length = _OPTION.unpack(_take(client, _OPTION.size))
            _take(client, length)
            if option in {_OPT_GO, _OPT_INFO}:
                export = struct.pack(">HQH", 0, self.size, _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA)
                client.sendall(_OPTION_REPLY.pack(_REPLY_MAGIC, option, _REP_INFO, len(export)) + export)
                client.sendall(_OPTION_REPLY.pack(_REPLY_MAGIC, option, _REP_ACK, 0))
                if option == _OPT_GO:
                    return
            else:
                reply = _REP_ACK if option == _OPT_ABORT else _REP_UNSUPPORTED
                client.sendall(_OPTION_REPLY.pack(_REPLY_MAGIC, option, reply, 0))
                if option == _OPT_ABORT:
                    raise EOFError

    def _answer_all(self, client: socket.socket) -> None:
        while True:
            _, flags, kind, handle, offset, length = _REQUEST.unpack(_take(client, _REQUEST.size))
            data = b""
            match kind:
                case 0:  # _READ
                    data = bytes(memoryview(self.content)[offset : offset + length])
                case 1 | 3 if self.failing:
                    if kind == _WRITE:
                        _take(client, length)
                    client.sendall(_REPLY.pack(0x67446698, _EIO, handle))
                    continue
                case 1:  # _WRITE
                    written = _take(client, length)
                    self.content[offset : offset + length] = written
                    self.journal.append(Write(offset, written))
                    if flags & _FUA:
                        self.journal.append(None)
                case 3:  # _FLUSH
                    self.journal.append(None)
                case 2:  # _DISCONNECT
                    return
                case _:
                    raise RuntimeError(f"NBD command {kind} was not offered")
            client.sendall(_REPLY.pack(0x67446698, 0, handle) + data)


def _take(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


class RecordedDisk:
    """`with RecordedDisk(folder) as disk:` … an empty ext4 at `disk.mount`, whose every block write is noted."""

    def __init__(self, folder: Path, size: int = SIZE_BYTES) -> None:
        check_can_run()
        self.folder, self.size = folder, size
        self.mount = folder / "mount"
        self._shown = folder / "shown"
        self._loop = ""
        self._fuse: subprocess.Popen[bytes] | None = None
        self.base = b""

    @property
    def journal(self) -> list[Write | None]:
        return self._recorder.journal

    def fail_writes(self, failing: bool) -> None:
        """From now on every write and flush is answered with an error, or no more."""
        self._recorder.failing = failing

    def mount_again(self) -> None:
        """As after a reboot: what the kernel had not written is forgotten, and its journal is replayed."""
        run("umount", self.mount)
        run("losetup", "--detach", self._loop)
        self._loop = run("losetup", "--find", "--show", self._shown)
        run("mount", "-t", "ext4", self._loop, self.mount)

    def __enter__(self) -> Self:
        self.mount.mkdir(parents=True)
        self._shown.touch()
        # A socket's name is short: at most 107 bytes.
        self._socket_folder = tempfile.TemporaryDirectory(prefix="edgeloop-nbd-")
        path = Path(self._socket_folder.name) / "nbd.sock"
        self._recorder = Recorder(path, self.size)
        try:
            self._fuse = subprocess.Popen(
                ["nbdfuse", str(self._shown), f"nbd+unix:///?socket={path}"], stdin=subprocess.DEVNULL
            )
            deadline_s = time.monotonic() + _WAIT_S
            while self._shown.stat().st_size != self.size:
                if self._fuse.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError("nbdfuse did not mount; see its words above")
                time.sleep(0.01)
            self._loop = run("losetup", "--find", "--show", self._shown)
            run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-b", "4096", self._loop)
            self.base = bytes(self._recorder.content)
            self._recorder.journal.clear()
            run("mount", "-t", "ext4", self._loop, self.mount)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if os.path.ismount(self.mount):
            run("umount", self.mount)
        if self._loop:
            run("losetup", "--detach", self._loop)
        if self._fuse is not None:
            with suppress(RuntimeError):
                run("fusermount3", "-u", "-z", self._shown)
            try:
                self._fuse.wait(_WAIT_S)
            except subprocess.TimeoutExpired:
                self._fuse.kill()
                self._fuse.wait()
        self._recorder.close()
        self._socket_folder.cleanup()


class Image(NamedTuple):
    """What a power cut after the first `cut` entries of the journal left."""

    cut: int
    choice: str
    content: bytes


def images(base: bytes, journal: list[Write | None], cuts: list[int], *, seed: int, parts: int = 1) -> Iterator[Image]:
    """For each cut (ascending): nothing and all of what came after the last flush, and `parts` random parts of it.
    Where nothing came after it there is one image."""
    rng = random.Random(seed)
    durable = bytearray(base)
    open_writes: list[Write] = []
    at = 0
    for cut in cuts:
        for entry in journal[at:cut]:
            if entry is None:
                for write in open_writes:
                    durable[write.offset : write.offset + len(write.data)] = write.data
                open_writes = []
            else:
                open_writes.append(entry)
        at = cut
        yield Image(cut, "none of the unflushed", bytes(durable))
        if not open_writes:
            continue
        yield Image(cut, "all of the unflushed", _with(durable, open_writes))
        for number in range(parts):
            share = rng.choice((0.2, 0.5, 0.8))
            some = [_torn(rng, write) for write in open_writes if rng.random() < share]
            rng.shuffle(some)
            yield Image(cut, f"part {number} of the unflushed", _with(durable, some))


def _torn(rng: random.Random, write: Write) -> Write:
    """Now and then only the first sectors of it, or the last."""
    sectors = len(write.data) // SECTOR
    if sectors < 2 or rng.random() < 0.5:
        return write
    keep = rng.randrange(1, sectors) * SECTOR
    if rng.random() < 0.5:
        return Write(write.offset, write.data[:keep])
    return Write(write.offset + keep, write.data[keep:])


def _with(durable: bytearray, writes: list[Write]) -> bytes:
    content = bytearray(durable)
    for write in writes:
        content[write.offset : write.offset + len(write.data)] = write.data
    return bytes(content)


@contextmanager
def mounted(image: bytes, folder: Path) -> Iterator[Path]:
    """The image mounted for reading and writing: ext4 replays its own journal first."""
    mount = folder / "replayed"
    mount.mkdir(exist_ok=True)
    file = folder / "image"
    file.write_bytes(image)
    run("mount", "-t", "ext4", "-o", "loop", file, mount)
    try:
        yield mount
    finally:
        run("umount", mount)
