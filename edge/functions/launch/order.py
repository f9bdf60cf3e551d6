"""What the gateway asks of the launcher: plain JSON types, written by edge.functions.sandbox.spawn, read here."""

from typing import Literal, TypedDict

# list: the names in a folder and below, for the search of modules; nothing of what is in them. Only where the tree of
# files is not its own, which would hold the names it needs anyway.
Access = Literal["read", "write", "list", "hide"]


class Order(TypedDict):
    """keep: file descriptors that stay open beside 0–2. report: where the report goes. gateway: its process id.
    control_groups: files to write "0" into. holds: what the control groups hold. listens: whether somebody hears of
    refused system calls, on a descriptor that comes with the report. waits: for a byte where the report went, before it
    begins. paths: path and access, others are out of reach. without: mechanisms not to use. alone: nothing else runs as
    uid. 0 in a limit: none."""

    argv: list[str]
    environment: dict[str, str]
    folder: str
    keep: list[int]
    report: int
    gateway: int
    waits: bool
    listens: bool
    control_groups: list[str]
    holds: list[str]
    uid: int
    gid: int
    alone: bool
    network: bool
    paths: list[tuple[str, Access]]
    memory_bytes_max: int
    processes_max: int
    workers: int
    file_bytes_max: int
    files_open_max: int
    without: list[str]


class Report(TypedDict):
    """held: the mechanisms that are at work. missed: those that are not, and why."""

    held: list[str]
    missed: dict[str, str]
