"""What the kernel tells of refused system calls, whatever code makes them: here calls of the C library."""

import errno

import pytest

from edge.functions.sandbox.refusals import CALLS_BURST
from tests.functions.gateway import USERS, Held, begun, hold, open_folder
from tests.functions.test_spawn import sandbox
from tests.processes import until

EVERY_WAY = {
    "all": frozenset[str](),
    "no_groups": frozenset({"groups"}),
    "no_namespaces": frozenset({"namespaces"}),
    "neither": frozenset({"groups", "namespaces"}),
}
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    return 0 if getattr(libc, name)(*arguments) >= 0 else ctypes.get_errno()
"""
SOCKETS = "print(*(call('socket', family, 1, 0) for family in (2, 2, 10, 17, 2, 1)))"
INET, INET6, PACKET = (("network", f"make a socket of AF_{name}") for name in ("INET", "INET6", "PACKET"))

pytestmark = pytest.mark.parametrize("user", USERS)


def held_by(user: str, code: str, *, is_listened_to: bool = False, **settings: object) -> Held:
    with open_folder() as place:
        return hold(sandbox(place, **settings), CALL + code, user=user, is_listened_to=is_listened_to)


@pytest.mark.parametrize("without", EVERY_WAY.values(), ids=EVERY_WAY)
def test_each_is_refused_with_the_filters_own_error_and_told_once(user: str, without: frozenset[str]) -> None:
    held = held_by(user, SOCKETS, without=without)
    *families, local = map(int, held.output.split())
    assert families == [errno.EACCES] * 5
    assert local == (errno.EACCES if "namespaces" in without else 0)  # where it leads nowhere it stays
    assert held.refused == [INET, INET6, PACKET]


def test_calls_that_reach_into_other_processes_are_told(user: str) -> None:
    code = "print(call('ptrace', 16, os.getppid(), 0, 0), call('unshare', 0x10000000))"
    held = held_by(user, code, network=True)
    assert held.output.split() == [f"{errno.EPERM}"] * 2
    assert held.refused == [("privileges", "ptrace"), ("privileges", "unshare")]


def test_what_is_granted_is_not_told(user: str) -> None:
    held = held_by(user, SOCKETS, network=True)
    assert held.output.split()[0] == "0"
    assert held.refused == []


@pytest.mark.parametrize("way", ["left out", "another listens already"])
def test_where_nobody_can_listen_the_same_is_refused_untold(user: str, way: str) -> None:
    without = frozenset({"listener"} if way == "left out" else ())
    held = held_by(user, SOCKETS, without=without, is_listened_to=way != "left out")
    assert held.output.split()[:5] == [f"{errno.EACCES}"] * 5
    assert held.refused == []
    assert held.containment.missed["listener"] == ("left out" if without else "Device or resource busy")
    assert held.containment.limits["network"].by.endswith("seccomp")


def test_who_asks_without_end_is_refused_without_end_and_heard_no_more(user: str) -> None:
    code = """
found = [call('socket', 2, 1, 0) for _ in range(20_000)]
print(len(found), *sorted(set(found)), found[-1], found.count(13))
"""
    held = held_by(user, code)
    count, *errors, last, heard = map(int, held.output.split())
    assert (count, errors, last) == (20_000, [errno.EACCES, errno.ENOSYS], errno.ENOSYS)
    assert heard >= CALLS_BURST
    assert held.refused[0] == INET
    assert [what for what, detail in held.refused if "the rest is refused and not told" in detail] == ["network"]


def test_many_processes_that_ask_at_once_and_are_killed_meanwhile_hold_nobody_up(user: str) -> None:
    code = """
import signal, time
for _ in range(8):
    pids = []
    for _ in range(6):
        if (pid := os.fork()) == 0:
            signal.alarm(5)
            while True: call('socket', 2, 1, 0)
        pids.append(pid)
    time.sleep(0.001)
    for pid in pids: os.kill(pid, 9); os.waitpid(pid, 0)
print(call('socket', 10, 1, 0) > 0)
"""
    held = held_by(user, code)
    assert held.output == "True\n"
    assert held.reason == "exited"
    assert INET in held.refused


def test_when_the_gateway_is_killed_what_outlives_it_is_refused_by_the_kernel(user: str) -> None:
    code = """
import time
if os.fork() == 0:
    parent = os.getppid()
    open('begun', 'w').close()
    while os.getppid() == parent: time.sleep(0.01)
    found = f"{call('socket', 2, 1, 0)}"
    open('found.new', 'w').write(found); os.rename('found.new', 'found')
    os._exit(0)
time.sleep(60)
"""
    with open_folder() as place:
        alone = sandbox(place, without=frozenset({"groups", "namespaces"}))
        with begun(alone, CALL + code, user=user) as gateway:
            assert until((place / "work" / "begun").exists)
            gateway.kill()
            assert until((place / "work" / "found").exists)
        assert (place / "work" / "found").read_text() == f"{errno.ENOSYS}"


def test_the_descriptor_that_answers_is_not_the_programs(user: str) -> None:
    code = """
call('socket', 2, 1, 0)
print([fd for fd in range(100) if call('fcntl', fd, 1, 0) == 0])
"""
    assert held_by(user, code).output == "[0, 1, 2]\n"
