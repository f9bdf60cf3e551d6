"""A gateway file that takes room or a whole stream away from what is still held: refused, unless said by name.

Invariants: without `--discard NAME` nothing held and not exported is given up by a change of the file; with it, what is
given up is counted and told, and of a stream that stays it is in its ledger as `discarded`.
A file that says no less than the one before takes nothing away, whatever is held.
"""

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from edge.config import Config, StreamSettings
from edge.errors import ConfigError
from edge.log import Log
from edge.logs import log_event
from edge.outbox.lanes import Lanes
from edge.outbox.ledger import Ledger
from edge.outbox.record import decode, name_of
from edge.outbox.report import CURSOR, FOLDER, Folder, folders
from edge.outbox.shedder import UNREADABLE

IMPLIED: Final = "implied"
"""In the state of a stream that no file declared: it may stay when nobody asks for it any more."""

BYTES_MAX: Final = "bytes_max"
"""In the state: what the file allowed last."""

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(int).decode


def check_removed(config: Config, discard: Sequence[str]) -> None:
    """Streams that have a folder and are no longer in the file. Raises ConfigError for one with a backlog."""
    known = {stream.name for stream in config.all_streams}
    there = folders(config)
    for name in discard:
        if name not in known and name not in there:
            fix = f"There are {', '.join(sorted({*known, *there})) or 'none'}."
            raise ConfigError(config.file, "stream", f"--discard names no stream {name!r}", fix)
    for name in there:
        if name in known:
            continue
        folder = Folder(config, name)
        held = folder.status().backlog_records
        implied = IMPLIED in folder.log.state and name not in discard
        folder.log.close()
        if implied:
            continue
        if held and name not in discard:
            problem = f"the stream {name!r} is gone from the file, and {held} records in it are not exported"
            fix = f"Put it back until they are, or start once with `edge run --discard {name}`."
            raise ConfigError(config.file, "stream", problem, fix)
        if name in discard:
            _tell(name, held)
            shutil.rmtree(os.path.join(config.gateway.data_dir, FOLDER, name))


def check_shrunk(config: Config, settings: StreamSettings, log: Log, own: str, discard: Sequence[str]) -> None:
    """log: opened, and not used yet. Raises ConfigError when it holds more than the file allows now, and did not
    before."""
    held = sum(segment.bytes for segment in log.segments)
    if held > settings.bytes_max and settings.bytes_max < _allowed(log):
        _discard(config, settings, log, own, by_name=settings.name in discard)
    if settings.bytes_max != _allowed(log):
        log.put_state(BYTES_MAX, _encode(settings.bytes_max))


def _discard(config: Config, settings: StreamSettings, log: Log, own: str, *, by_name: bool) -> None:
    held = sum(segment.bytes for segment in log.segments)
    place = 1 + config.all_streams.index(settings)
    sent = Lanes(log.state.get(CURSOR), log.first, live_first=False).sent
    backlog = log.next - max(sent.cursor, log.first)
    if backlog and not by_name:
        problem = f"{settings.bytes_max} is less than what stream {settings.name!r} holds, {held} bytes"
        fix = f"Allow more until it is exported, or start once with `edge run --discard {settings.name}`."
        raise ConfigError(config.file, f"stream[{place}].bytes_max", problem, fix)
    log.room(settings.bytes_max)
    log.renew()
    log.commit()
    until = log.first
    for segment in log.segments[:-1]:
        until = max(until, segment.next)
        held -= segment.bytes
        if held <= settings.bytes_max // 2:
            break
    ledger = Ledger(log.state)
    count, number = 0, max(sent.cursor, log.first)
    while number < until and (rows := log.read(number, records_max=1024, bytes_max=1 << 20)):
        for number, data in rows:
            if number < until and not sent.is_settled(number):
                record = decode(data)
                ledger.add(*(name_of(record, number, own) if record is not None else UNREADABLE), "discarded")
                count += 1
        number += 1
    for key, value in ledger.changes():
        log.put_state(key, value)
    log.release(until)
    log.commit()
    if count:
        _tell(settings.name, count)


def _allowed(log: Log) -> int:
    """What the file before allowed; without bounds where that is not known."""
    try:
        return _decode(log.state[BYTES_MAX])
    except (KeyError, msgspec.DecodeError):
        return sys.maxsize


def _tell(name: str, count: int) -> None:
    log_event(_log, "stream_discarded", level=logging.WARNING, stream=name, records=count)
