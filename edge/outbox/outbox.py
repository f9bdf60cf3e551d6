"""All streams of a gateway: opens their logs at start, gives them to the router, closes them at the end."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from edge.config import STREAM_BYTES_LEAST, Config, RouteSettings, StreamSettings
from edge.errors import ConfigError, InputRejected
from edge.log import Log, LogOptions
from edge.messages import Target
from edge.metrics import Metrics
from edge.outbox.discard import check_removed, check_shrunk
from edge.outbox.drain import Drain
from edge.outbox.marks import GatewayMarks
from edge.outbox.report import FOLDER, SourceLosses, StreamStatus, losses, rows
from edge.outbox.reserve import Reserve
from edge.outbox.stream import Stream
from edge.outbox.uploader import Uploader

RESERVE = "reserve"
BOOT = "boot"
_BOOT_MAX = (1 << 32) - 1
_SEGMENT_BYTES_MAX = 4 * 1024 * 1024
_SEGMENTS_LEAST = 8


class Outbox:
    """targets: where streams may be exported to, by name. discard: streams whose backlog the file may take away.

    Raises ConfigError: a log of a newer version, a disk that cannot be written, a file that leaves no place for what is
    held.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        targets: Mapping[str, Target],
        *,
        discard: Sequence[str] = (),
        now: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._discard = discard
        self.streams: dict[str, Stream] = {}
        self._uploaders: dict[str, Uploader] = {}
        self._drains: dict[str, Drain] = {}
        self._reserve = Reserve(os.path.join(config.gateway.data_dir, RESERVE))
        check_removed(config, discard)
        if config.streams:
            self._share = self._disk_bytes() // len(config.streams)
            self._reserve.take()
        for settings in config.streams:
            stream = self._open(settings, metrics, now, unix_time)
            self.streams[settings.name] = stream
            if settings.export:
                topic = f"batch/{config.gateway.name}/{settings.name}"
                uploader = self._uploaders[settings.name] = Uploader(stream, metrics, topic, now())
                self._drain(settings.export, targets, now).add(uploader)

    def marks(self, routes: Sequence[RouteSettings]) -> GatewayMarks:
        """Which readings of the boards are settled. routes: all the router has."""

        boards = {f"board:{board.name}" for board in self._config.boards}

        def streams_of(thing: str) -> tuple[Sequence[Stream], bool]:
            own = f"board:{thing}"
            sources = {own} if own in boards else boards  # a further client id comes in by whichever board
            names = dict.fromkeys(
                name for route in routes if route.source in sources or route.source == "boards" for name in route.to
            )
            found = [self.streams[name[7:]] for name in names if name.startswith("stream:")]
            return found, len(found) == len(names)

        return GatewayMarks(streams_of)

    def status(self) -> tuple[StreamStatus, ...]:
        return tuple(self._status_of(stream) for stream in self.streams.values())

    def show(self, name: str) -> StreamStatus:
        """Raises InputRejected for a name that is no stream's, as those below do."""
        return self._status_of(self._stream(name))

    def purge(self, name: str) -> dict[str, Any]:
        """Give up all that the stream holds; counted in its ledger."""
        return {"stream": name, "purged": self._stream(name).purge()}

    def export(self, name: str, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Committed records first to last, whether they were exported or not, as long as they are held."""
        stream = self._stream(name)
        return rows(stream.log, stream.own, stream.clock, first, min(last, stream.log.next - 1))

    def losses(self, name: str) -> list[SourceLosses]:
        stream = self._stream(name)
        return losses(stream.marks, stream.ledger)

    def _stream(self, name: str) -> Stream:
        try:
            return self.streams[name]
        except KeyError:
            raise InputRejected("no_such_stream", f"{name!r}; there are {', '.join(self.streams)}") from None

    def _status_of(self, stream: Stream) -> StreamStatus:
        log, uploader = stream.log, self._uploaders.get(stream.name)
        taken, drained = stream.rates
        left = uploader.backlog() if uploader is not None else log.next - log.first
        return StreamStatus(
            name=stream.name,
            first=log.first,
            next=log.next,
            backlog_records=left,
            bytes=log.bytes_held,
            bytes_max=stream.settings.bytes_max,
            oldest_age_s=stream.oldest_age_s(),
            records_per_s=round(taken, 3),
            drained_per_s=round(drained, 3),
            drain_s=round(left / (drained - taken), 1) if drained > taken and left else (None if left else 0.0),
            under_way=uploader.under_way if uploader is not None else 0,
            shed=stream.ledger.totals,
            damaged_records=sum(damage.next - damage.first for damage in log.damages),
            failing=stream.failing,
        )

    def start(self) -> None:
        """On the running loop: what is held from before goes on."""
        for stream in self.streams.values():
            stream.start()
        for drain in self._drains.values():
            drain.pump()

    def close(self) -> None:
        """When the connections have ended: nothing is under way any more."""
        for drain in self._drains.values():
            drain.stop()
        for stream in self.streams.values():
            stream.close()

    def _disk_bytes(self) -> int:
        """Of the whole file system, free or not. Raises ConfigError where not even the smallest streams fit in it."""
        folder = self._config.gateway.data_dir
        found = os.statvfs(folder)
        size = found.f_blocks * found.f_frsize
        least = STREAM_BYTES_LEAST * len(self._config.streams)
        if size < least:
            problem = f"the disk of {folder} has {size} bytes in all, and these streams need {least}"
            fix = "Make the data_dir a folder on a larger disk, or have fewer streams."
            raise ConfigError(self._config.file, "gateway.data_dir", problem, fix)
        return size

    def _open(
        self, settings: StreamSettings, metrics: Metrics, now: Callable[[], float], unix_time: Callable[[], float]
    ) -> Stream:
        folder = os.path.join(self._config.gateway.data_dir, FOLDER, settings.name)
        size = segment_bytes(min(settings.bytes_max, self._share))
        options = LogOptions(segment_bytes=size, sync=settings.commit != "never")
        try:
            log = Log.open(folder, options=options, metrics=metrics, name=settings.name)
        except OSError as error:
            fix = "Make the data_dir a folder on a disk that this user may write."
            raise ConfigError(self._config.file, "gateway.data_dir", f"{folder}: {error.strerror}", fix) from None
        own = f"{self._config.gateway.name}/{settings.name}"
        check_shrunk(self._config, settings, log, own, self._discard)
        boot = next_boot(log.state.get(BOOT), unix_time())
        log.put_state(BOOT, msgspec.msgpack.encode(boot))
        return Stream(
            settings,
            log,
            own,
            metrics,
            boot=boot,
            system_boot=_system_boot(),
            segment_bytes=size,
            now=now,
            unix_time=unix_time,
            disk_full=self._reserve.give,
            disk_well=self._reserve.take,
        )

    def _drain(self, name: str, targets: Mapping[str, Target], now: Callable[[], float]) -> Drain:
        drain = self._drains.get(name)
        if drain is None:
            settings = self._config.cloud if name == "cloud" else self._config.broker
            assert settings is not None
            # No more than the connection keeps in flight: what it would queue is read no sooner than it can go out.
            drain = self._drains[name] = Drain(targets[name], settings.window, now)
        return drain


def segment_bytes(bytes_max: int) -> int:
    """So that a stream has several segments: it frees and drops whole ones. bytes_max: of the stream, or its share of
    the disk where that is less: a full disk frees itself only by what lies before the last segment."""
    size = _SEGMENT_BYTES_MAX
    while size * _SEGMENTS_LEAST > bytes_max and size > 256 * 1024:
        size //= 2
    return size


def next_boot(value: bytes | None, unix_s: float) -> int:
    """The number of this start: above the last, and the Unix time in seconds where the clock is set, so that it rises
    even when a damaged tail took the last one along or the folder was removed."""
    try:
        last = msgspec.msgpack.decode(value, type=int) if value else 0
    except (msgspec.DecodeError, UnicodeDecodeError):
        last = 0
    return min(max(last + 1, int(unix_s)), _BOOT_MAX)


def _system_boot() -> str:
    """Of the operating system; unique to this process where it does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.urandom(8).hex()
