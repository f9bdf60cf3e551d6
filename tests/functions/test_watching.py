"""What a worker tells of things its code tries beyond its grants, in a process without a sandbox."""

import os
from pathlib import Path
from typing import Any

import pytest

from edge.functions import wire
from edge.functions.watching import TOLD_MAX, Watching
from tests.functions.workers import ROOT, Worker, configure


def watching(
    tmp_path: Path, granted: dict[str, str], *, network: bool = False
) -> tuple[Watching, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    paths = [("/usr", "read"), *((str(tmp_path / name), access) for name, access in granted.items())]
    return Watching(paths, network=network, tell=lambda one: told.append((one.what, one.detail))), told


def worker(folder: Path, code: str, **fields: Any) -> Worker:
    paths = (("/usr", "read"), (str(ROOT / "edge"), "read"), (str(folder / "code"), "read"))
    return Worker(configure(folder / "code", code, handler="handler", paths=paths, network=False, **fields))


def told(one: Worker) -> list[tuple[str, str]]:
    return [(each.what, each.detail) for each in one.tried]


def test_a_file_that_is_not_granted_is_told_once_though_the_code_swallows_the_error(tmp_path: Path) -> None:
    code = f"""
        def handler(event, context):
            for _ in range(100):
                try:
                    open("{tmp_path}/no/such.key")
                except OSError:
                    pass
        """
    with worker(tmp_path, code) as one:
        one.ready()
        one.done()
        one.done()
        assert told(one) == [("files", f"open {tmp_path}/no/such.key")]


def test_what_is_tried_while_the_code_is_imported_is_told_too(tmp_path: Path) -> None:
    code = f"""
        import contextlib, os
        with contextlib.suppress(OSError):
            os.unlink("{tmp_path}/nothing/file")
        def handler(event, context): ...
        """
    with worker(tmp_path, code) as one:
        one.ready()
        assert told(one) == [("files", f"remove {tmp_path}/nothing/file")]


@pytest.mark.parametrize("style", ["", "async "])
def test_sockets_without_the_grant_are_told(tmp_path: Path, style: str) -> None:
    code = f"""
        import socket
        {style}def handler(event, context):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                try:
                    sock.connect(("127.0.0.1", 9))
                    socket.getaddrinfo("localhost.invalid", 80)
                except OSError:
                    pass
        """
    with worker(tmp_path, code) as one:
        one.ready()
        one.done()
        assert told(one) == [
            ("network", "make a socket of AF_INET"),
            ("network", "connect to 127.0.0.1:9"),
            ("network", "look up localhost.invalid"),
        ]


def test_a_fork_that_is_refused_is_told(tmp_path: Path) -> None:
    code = """
        import os, resource
        def handler(event, context):
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            try:
                if os.fork() == 0:
                    os._exit(0)
            except BlockingIOError:
                return "refused"
        """
    with worker(tmp_path, code) as one:
        one.ready()
        assert one.done() == b"refused"
        assert told(one) == [("processes", "begin one more process than it may have")]


def test_a_fork_of_the_worker_says_nothing_on_its_socket(tmp_path: Path) -> None:
    code = f"""
        import os
        def handler(event, context):
            if os.fork() == 0:
                try:
                    open("{tmp_path}/no/such.key")
                finally:
                    os._exit(0)
            os.wait()
        """
    with worker(tmp_path, code) as one:
        one.ready()
        one.done()
        assert told(one) == []


def test_a_destructor_that_tries_something_while_a_frame_is_written_blocks_nothing(tmp_path: Path) -> None:
    """The writer's lock is held then, by the code below."""
    code = f"""
        import edge.functions.channel as channel
        write = channel.os.write
        class Os:
            def __getattr__(self, name):
                return getattr(os, name)
            @staticmethod
            def write(fd, data):
                try:
                    open("{tmp_path}/no/such.key")
                except OSError:
                    pass
                return write(fd, data)
        import os
        channel.os = Os()
        def handler(event, context): ...
        """
    with worker(tmp_path, code) as one:
        one.ready()
        one.done()
        one.done()
        assert told(one) == [("files", f"open {tmp_path}/no/such.key")]


def test_what_is_granted_is_not_told(tmp_path: Path) -> None:
    one, rows = watching(tmp_path, {"own": "write", "code": "read"}, network=True)
    for path, flags in (
        (f"{tmp_path}/own/a/b", os.O_CREAT | os.O_RDWR),
        (f"{tmp_path}/code/f.py", os.O_RDONLY),
        (f"{tmp_path}/code/../own/x".encode(), os.O_WRONLY),
        (f"{tmp_path}/code/__pycache__/f.cpython-311.pyc.1", os.O_CREAT | os.O_WRONLY),
        ("/usr/lib/anything", os.O_RDONLY),
        ("/proc/self/status", os.O_RDONLY),
        (f"/proc/{os.getpid()}/maps", os.O_RDONLY),
        ("/proc/cpuinfo", os.O_RDONLY),
        ("/dev/urandom", os.O_RDONLY),
        ("/dev/null", os.O_WRONLY),
        (3, os.O_WRONLY),
    ):
        one.heard("open", (path, None, flags))
    one.heard("os.rename", (f"{tmp_path}/own/a", f"{tmp_path}/own/b", -1, -1))
    one.heard("socket.connect", (None, ("127.0.0.1", 1)))
    one.heard("import", ("os", None, None, None, None))
    assert rows == []


def test_the_longest_path_of_the_grants_counts(tmp_path: Path) -> None:
    one, rows = watching(tmp_path, {"own": "write", "own/keys": "hide", "own/keys/mine": "read", "listed": "list"})
    opened = ["own/keys/gateway.key", "own/keys/mine", "listed/module.py", "owner"]
    for name in opened:
        one.heard("open", (str(tmp_path / name), "r", os.O_RDONLY))
    one.heard("open", (str(tmp_path / "own/keys/mine"), None, os.O_WRONLY))
    one.heard("os.link", ("/usr/lib/x", str(tmp_path / "own/x"), -1, -1))
    assert rows == [
        ("files", f"open {tmp_path}/own/keys/gateway.key"),
        ("files", f"open {tmp_path}/listed/module.py"),
        *(
            [("files", f"open {tmp_path}/owner")]
            if not os.access(tmp_path, os.W_OK) or not str(tmp_path).startswith("/tmp/")
            else []
        ),
        ("files", f"open {tmp_path}/own/keys/mine to write"),
        ("files", "link /usr/lib/x"),
    ]


def test_unix_sockets_within_its_folder_are_its_own(tmp_path: Path) -> None:
    one, rows = watching(tmp_path, {"own": "write"})
    one.heard("socket.__new__", (None, 1, 1, 0))
    one.heard("socket.bind", (None, f"{tmp_path}/own/sock"))
    one.heard("socket.connect", (None, f"{tmp_path}/own/sock".encode()))
    one.heard("socket.connect", (None, "/run/system.sock"))
    one.heard("socket.connect", (None, b"\0abstract"))
    one.heard("socket.sendmsg", (None, None))
    assert rows == [("network", "connect to /run/system.sock"), ("network", "connect to @abstract")]


def test_what_is_told_is_bounded_and_can_be_sent(tmp_path: Path) -> None:
    one, rows = watching(tmp_path, {})
    for number in range(1000):
        one.heard("open", (f"/secret/{number}/\udcff\n" + "x" * 10_000, None, os.O_RDONLY))
    assert len(rows) == TOLD_MAX
    assert all(wire.frame(wire.Tried("files", detail)) and "\n" not in detail for _, detail in rows)


@pytest.mark.parametrize("arguments", [(), (None, None, 0), (object(), "r", "x"), ("\0", None, 0), ([], None, 0)])
def test_nonsense_raises_nothing(tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    one, _ = watching(tmp_path, {})
    for event in ("open", "os.rename", "socket.connect", "socket.__new__", "socket.getaddrinfo"):
        one.heard(event, arguments)
