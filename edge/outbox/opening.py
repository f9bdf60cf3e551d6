"""Opens a stream in its folder: a stream of the file, or the inbox of a function."""

import os
import time
from collections.abc import Callable
from typing import Final

import msgspec

from edge.config import StreamSettings
from edge.errors import ConfigError
from edge.log import Log, LogOptions
from edge.metrics import Metrics
from edge.outbox.sizes import segment_bytes
from edge.outbox.stream import Stream

BOOT: Final = "boot"
_BOOT_MAX = (1 << 32) - 1


def open_stream(
    settings: StreamSettings,
    folder: str,
    own: str,
    metrics: Metrics,
    *,
    file: str,
    check: Callable[[Log], None] = lambda log: None,
    disk_share: int | None = None,
    now: Callable[[], float] = time.monotonic,
    unix_time: Callable[[], float] = time.time,
    disk_full: Callable[[], None] = lambda: None,
    disk_well: Callable[[], None] = lambda: None,
) -> Stream:
    """own: names what comes without a reading. file: the gateway file, for messages. check: looks at the log before
    it is used. disk_share: bytes of the disk that are its, where that is known. Raises ConfigError when the folder
    cannot be used."""
    size = segment_bytes(settings.bytes_max if disk_share is None else min(settings.bytes_max, disk_share))
    thins = settings.when_full == "thin"
    options = LogOptions(segment_bytes=size, keeps_room=thins, sync=settings.commit != "never")
    try:
        log = Log.open(folder, options=options, metrics=metrics, name=settings.name)
    except OSError as error:
        fix = "Make the data_dir a folder on a disk that this user may write."
        raise ConfigError(file, "gateway.data_dir", f"{folder}: {error.strerror}", fix) from None
    check(log)
    boot = next_boot(log.state.get(BOOT), unix_time())
    log.put_state(BOOT, msgspec.msgpack.encode(boot))
    return Stream(
        settings,
        log,
        own,
        metrics,
        boot=boot,
        system_boot=system_boot(),
        segment_bytes=size,
        now=now,
        unix_time=unix_time,
        disk_full=disk_full,
        disk_well=disk_well,
    )


def next_boot(value: bytes | None, unix_s: float) -> int:
    """The number of this start: above the last, and the Unix time in seconds where the clock is set, so that it rises
    even when a damaged tail took the last one along or the folder was removed."""
    try:
        last = msgspec.msgpack.decode(value, type=int) if value else 0
    except (msgspec.DecodeError, UnicodeDecodeError):
        last = 0
    return min(max(last + 1, int(unix_s)), _BOOT_MAX)


def system_boot() -> str:
    """Of the operating system; unique to this process where it does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.urandom(8).hex()
