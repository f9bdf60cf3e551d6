"""The filter of system calls, run by an interpreter of classic BPF, for every machine it knows."""

import struct

import pytest

from edge.functions.launch import kernel
from edge.functions.launch.machine import MACHINES
from edge.functions.launch.seccomp import program, refusal

ALLOW, ASK, EPERM, EACCES, ENOSYS = 0x7FFF_0000, 0x7FC0_0000, 0x0005_0001, 0x0005_000D, 0x0005_0026
AF_UNIX, AF_INET = 1, 2
every_machine = pytest.mark.parametrize("name", sorted(MACHINES))


def verdict(filter_: bytes, number: int, audit: int, argument: int = 0) -> int:
    data = struct.pack("=IIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    rules = list(struct.iter_unpack("=HBBI", filter_))
    at = held = 0
    while True:
        code, if_true, if_false, k = rules[at]
        at += 1
        match code:
            case 0x20:
                held = int.from_bytes(data[k : k + 4], "little")
            case 0x15:
                at += if_true if held == k else if_false
            case 0x35:
                at += if_true if held >= k else if_false
            case 0x45:
                at += if_true if held & k else if_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(code)


@every_machine
def test_what_reaches_into_others_is_refused_and_the_rest_goes_on(name: str) -> None:
    here = MACHINES[name]
    held = program(here, network=False, local_sockets=False)
    for call in ("ptrace", "process_vm_readv", "mount", "unshare", "bpf", "io_uring_setup", "keyctl", "pidfd_getfd"):
        assert verdict(held, here.numbers[call], here.audit) == EPERM
    assert verdict(held, here.numbers["clone3"], here.audit) == ENOSYS
    for call in ("setsid", "setpgid", "fchmodat", "clone"):
        assert verdict(held, here.numbers[call], here.audit) == ALLOW
    assert verdict(held, here.numbers["clone"], here.audit, kernel.CLONE_NEWUSER | 17) == EPERM
    assert verdict(held, 0, here.audit) == ALLOW


@every_machine
def test_another_machines_calls_are_not_there(name: str) -> None:
    here = MACHINES[name]
    held = program(here, network=True, local_sockets=True)
    assert verdict(held, 0, 0x4000_0003) == ENOSYS
    assert verdict(held, 0x4000_0000 + here.numbers["socket"], here.audit) == ENOSYS


@every_machine
@pytest.mark.parametrize(
    ("network", "local", "inet", "unix"),
    [(False, False, EACCES, EACCES), (False, True, EACCES, ALLOW), (True, False, ALLOW, ALLOW)],
)
def test_sockets_are_had_by_grant(name: str, *, network: bool, local: bool, inet: int, unix: int) -> None:
    here = MACHINES[name]
    held = program(here, network=network, local_sockets=local)
    assert verdict(held, here.numbers["socket"], here.audit, AF_INET) == inet
    assert verdict(held, here.numbers["socket"], here.audit, AF_UNIX) == unix


@every_machine
def test_the_group_and_the_modes_of_files_are_held_when_nothing_else_does(name: str) -> None:
    here = MACHINES[name]
    held = program(here, network=False, local_sockets=False, hold_group=True, hold_modes=True)
    for call in ("setsid", "setpgid", "fchmod", "fchmodat", "fchmodat2"):
        assert verdict(held, here.numbers[call], here.audit) == EPERM


@every_machine
@pytest.mark.parametrize("local", [False, True])
def test_a_listener_is_left_what_would_be_refused_anyway_and_nothing_else(name: str, *, local: bool) -> None:
    here = MACHINES[name]
    plain, asking = (program(here, network=False, local_sockets=local, ask=ask) for ask in (False, True))
    asked = set()
    for number in range(512):
        for argument in (0, AF_UNIX, AF_INET, 16, 17, kernel.CLONE_NEWUSER):
            without = verdict(plain, number, here.audit, argument)
            found = verdict(asking, number, here.audit, argument)
            if found == ASK:
                error, called = refusal(here, number)
                assert without == 0x0005_0000 | error
                asked.add(called)
            else:
                assert found == without
    assert asked >= {"socket", "ptrace", "process_vm_readv", "pidfd_getfd", "mount", "bpf"}
    assert not asked & {"clone", "clone3", "io_uring_setup"}


@every_machine
def test_the_c_librarys_own_sockets_and_granted_ones_are_not_asked_about(name: str) -> None:
    here = MACHINES[name]
    number = here.numbers["socket"]
    held = program(here, network=False, local_sockets=False, ask=True)
    assert verdict(held, number, here.audit, AF_UNIX) == EACCES
    assert verdict(program(here, network=True, local_sockets=False, ask=True), number, here.audit, AF_INET) == ALLOW
