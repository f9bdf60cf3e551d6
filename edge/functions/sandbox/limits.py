"""From what the launcher took on to what holds: each limit, the mechanism that keeps it, or what is missing."""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from edge.config_functions import LIMITS
from edge.functions.sandbox.settings import Sandbox

_GROUPS: Final = "give the gateway control groups with {} (in a systemd unit Delegate=yes)"
_NAMESPACES: Final = "run the gateway where namespaces can be made (in few containers)"
_ELSE: Final = "it cannot be had on this machine; remove it from `demand`."
_REMEDIES: Final[Mapping[str, str]] = {
    "memory": f"{_GROUPS.format('memory')}; on a Raspberry Pi put cgroup_enable=memory into cmdline.txt.",
    "processes": f"{_GROUPS.format('pids')}, or run it as root.",
    "folder": "run the gateway as root, with its data_dir on a disk that is mounted with user quotas (usrquota).",
    "cpu": f"{_GROUPS.format('cpu')}.",
    "network": f"{_NAMESPACES}, or where it may set a seccomp filter.",
    "files": f"{_NAMESPACES}, or on Linux 5.13 and later with Landlock.",
    "user": "run the gateway as root.",
    "privileges": f"{_NAMESPACES}, or as root.",
    "end": f"{_GROUPS.format('pids')}, or {_NAMESPACES}.",
}
_FAR: Final = "another function, the gateway's keys and its data can be read where file modes allow it"


class Held(msgspec.Struct, frozen=True):
    """by: the mechanisms, empty when nothing keeps this limit. but: what that leaves open, for people."""

    by: str
    but: str = ""


class Containment(msgspec.Struct, frozen=True):
    """limits: in the order of LIMITS. missed: mechanisms that are not to be had here, and why."""

    limits: dict[str, Held]
    missed: dict[str, str] = {}

    def open(self) -> list[str]:
        """The limits that nothing keeps."""
        return [limit for limit, held in self.limits.items() if not held.by]

    def unmet(self, demand: Collection[str]) -> str:
        """What of these does not hold, or leaves something open, and what would help; empty where all hold."""
        told = []
        for limit in demand:
            held = self.limits[limit]
            if not held.by or held.but:
                why = "; ".join(part for part in (held.by, held.but) if part)
                told.append(f"{limit} ({why}): {_REMEDIES.get(limit, _ELSE)}")
        return " ".join(told)


def containment(
    sandbox: Sandbox, held: Collection[str], missed: Mapping[str, str], groups: str, holds: Collection[str]
) -> Containment:
    """held, missed: the launcher's report, and perhaps `quota`. groups: "cgroup v2", "cgroup v1" or "". holds: what
    those hold."""
    joined = all(name in held for name in held if name.startswith("group:")) and not any(
        name.startswith("group:") for name in missed
    )
    kept = set(holds) if joined else set()
    landlock = next((int(name.partition(":")[2]) for name in held if name.startswith("landlock:")), 0)
    found = {
        "memory": _memory(groups, kept),
        "processes": _processes(groups, kept, held),
        "file_size": Held("rlimit"),
        "folder": Held("quota")
        if "quota" in held
        else Held("a watch", "what goes beyond is seen a moment later, and taken away"),
        "files_open": Held("rlimit"),
        "cpu": _cpu(sandbox, groups, kept),
        "core_dumps": Held("rlimit"),
        "network": _network(sandbox, held, landlock),
        "files": _files(held, landlock),
        "user": Held("a user of its own") if "user" in held else Held("", "it runs as the service's own user"),
        "privileges": _privileges(held, landlock),
        "end": _end(groups, kept, held, alone=not sandbox.user and sandbox.workers == 1),
    }
    return Containment({limit: found[limit] for limit in LIMITS}, dict(missed))


def _memory(groups: str, kept: Collection[str]) -> Held:
    if "memory" in kept:
        return Held(groups)
    return Held("rlimit, and a watch on the sum", "the sum of its processes is seen twice a second")


def _processes(groups: str, kept: Collection[str], held: Collection[str]) -> Held:
    if "processes" in kept:
        return Held(groups)
    if "user" in held or "namespace:user" in held:
        return Held("rlimit")
    return Held("rlimit", "counted with all other processes of this user")


def _cpu(sandbox: Sandbox, groups: str, kept: Collection[str]) -> Held:
    if not sandbox.cpu_percent_max:
        return Held("niceness")
    if "cpu" in kept:
        return Held(groups)
    return Held("", "no control group with cpu: niceness alone, and the deadline of a call")


def _network(sandbox: Sandbox, held: Collection[str], landlock: int) -> Held:
    if sandbox.network:
        return Held("granted")
    means = [
        name
        for name, there in (
            ("network namespace", "namespace:network" in held),
            ("seccomp", "seccomp" in held),
        )
        if there
    ]
    if means:
        apart = "seccomp" in held or "namespace:files" in held
        return Held(", ".join(means), "" if apart else "it may open Unix sockets that it finds among the files")
    if landlock >= 4:
        return Held("Landlock", "TCP alone is held")
    return Held("", "it may open sockets")


def _files(held: Collection[str], landlock: int) -> Held:
    means = ["mount namespace"] if "namespace:files" in held else []
    if landlock:
        means.append("Landlock")
    if means:
        return Held(", ".join(means))
    if "user" in held:
        return Held("a user of its own", "files that all may read stay readable")
    return Held("", _FAR)


def _privileges(held: Collection[str], landlock: int) -> Held:
    if "no_new_privileges" not in held:
        return Held("", "programs with the set-uid bit work")
    apart = "namespace:processes" in held or "user" in held or landlock >= 6
    but = "" if apart else "it may send signals to this user's other processes"
    return Held("no_new_privs, seccomp" if "seccomp" in held else "no_new_privs", but)


def _end(groups: str, kept: Collection[str], held: Collection[str], *, alone: bool) -> Held:
    means = ["process namespace"] if "namespace:processes" in held else []
    if kept:
        means.append(groups)
    if means:
        return Held(", ".join(means))
    if alone and "user" in held:
        return Held("all of its user are killed")
    if "group_kept" in held:
        return Held("process group, which seccomp lets nobody leave")
    return Held("", "its process group is killed; one who leaves it outlives it")
