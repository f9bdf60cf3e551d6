"""All streams of a gateway: opens their logs at start, gives them to the router, closes them at the end."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edge.config import STREAM_BYTES_LEAST, Config, RouteSettings, StreamSettings, dead_letter_stream
from edge.errors import ConfigError, InputRejected
from edge.log import Log
from edge.messages import Target
from edge.metrics import Metrics
from edge.outbox.discard import IMPLIED, check_removed, check_shrunk
from edge.outbox.drain import Drain
from edge.outbox.marks import GatewayMarks, Keeper
from edge.outbox.opening import open_stream
from edge.outbox.report import FOLDER, SourceLosses, StreamStatus, losses, rows
from edge.outbox.reserve import Reserve
from edge.outbox.stream import Stream
from edge.outbox.uploader import Uploader

RESERVE = "reserve"


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
        self._config, self._discard = config, discard
        self._started = False
        self._metrics, self._now, self._unix_time = metrics, now, unix_time
        self.streams: dict[str, Stream] = {}
        self._uploaders: dict[str, Uploader] = {}
        self._drains: dict[str, Drain] = {}
        self._backlogs: dict[str, Callable[[], int]] = {}
        self._reserve = Reserve(os.path.join(config.gateway.data_dir, RESERVE))
        check_removed(config, discard)
        self._share: int | None = None
        if config.all_streams:
            self._share = self._disk_share(len(config.all_streams))
            self._reserve.take()
        for settings in config.all_streams:
            stream = self._open_declared(settings)
            self.streams[settings.name] = stream
            if settings.export:
                topic = config.batch_topic(settings)
                uploader = self._uploaders[settings.name] = Uploader(stream, metrics, topic, now(), patient=True)
                self._drain(settings.export, targets, now).add(uploader)

    def marks(
        self, routes: Callable[[], Sequence[RouteSettings]], keeper: Callable[[str], Keeper | None]
    ) -> GatewayMarks:
        """Which readings of the boards are settled. routes: all the router has now; keeper: of a target that is no
        stream and keeps marks all the same."""

        boards = {f"board:{board.name}" for board in self._config.boards}

        def streams_of(thing: str) -> tuple[Sequence[Keeper], bool]:
            own = f"board:{thing}"
            sources = {own} if own in boards else boards  # a further client id comes in by whichever board
            names = dict.fromkeys(
                name for route in routes() if route.source in sources or route.source == "boards" for name in route.to
            )
            held = [self.streams[name[7:]] if name.startswith("stream:") else keeper(name) for name in names]
            found = [one for one in held if one is not None]
            return found, len(found) == len(names)

        return GatewayMarks(streams_of)

    def open(self, settings: StreamSettings, folder: str, own: str) -> Stream:
        """A stream beside those of the file, shown, started and closed with them. folder: of its log."""
        self._reserve.take()
        stream = self.streams[settings.name] = self._open(settings, folder, own)
        return stream

    def export(self, stream: Stream, drain: Drain, backlog: Callable[[], int]) -> None:
        """One of the ways on of such a stream; several may each take a part of it. backlog: of all of it."""
        self._drains[f"{stream.name} {len(self._drains)}"] = drain
        self._backlogs[stream.name] = backlog

    def status(self) -> tuple[StreamStatus, ...]:
        return tuple(self._status_of(stream) for stream in self.streams.values())

    def show(self, name: str) -> StreamStatus:
        """Raises InputRejected for a name that is no stream's, as those below do."""
        return self._status_of(self._stream(name))

    def purge(self, name: str) -> dict[str, Any]:
        """Give up all that the stream holds; counted in its ledger."""
        return {"stream": name, "purged": self._stream(name).purge()}

    def rows(self, name: str, first: int, last: int) -> Iterator[dict[str, Any]]:
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
        backlog = uploader.backlog if uploader is not None else self._backlogs.get(stream.name)
        left = backlog() if backlog is not None else log.next - log.first
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
            failing=stream.failing or (uploader.failing if uploader is not None else ""),
            disk_full=stream.shortage.is_told,
        )

    def start(self) -> None:
        """On the running loop: what is held from before goes on."""
        self._started = True
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

    def _disk_share(self, streams: int) -> int | None:
        """Each stream's of the whole file system, free or not; None where the folder is not there yet.

        Raises ConfigError where not even the smallest streams fit in it.
        """
        folder = self._config.gateway.data_dir
        try:
            found = os.statvfs(folder)
        except OSError:
            return None  # whoever opens the logs makes it, or tells what is wrong with it
        size = found.f_blocks * found.f_frsize
        least = STREAM_BYTES_LEAST * streams
        if size < least:
            problem = f"the disk of {folder} has {size} bytes in all, and these streams need {least}"
            fix = "Make the data_dir a folder on a larger disk, or have fewer streams."
            raise ConfigError(self._config.file, "gateway.data_dir", problem, fix)
        return size // streams

    def dead_letters(self, name: str) -> Stream:
        """The stream of this name; made if it is not there. On the running loop when the streams are started."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = self._open_declared(dead_letter_stream(name))
            if self._started:
                stream.start()
        return stream

    def _open_declared(self, settings: StreamSettings) -> Stream:
        """One of the file, or one that the file's functions make for themselves."""
        folder = os.path.join(self._config.gateway.data_dir, FOLDER, settings.name)
        stream = self._open(settings, folder, f"{self._config.gateway.name}/{settings.name}")
        if settings not in self._config.streams:
            stream.keep(IMPLIED, b"1")
        return stream

    def _open(self, settings: StreamSettings, folder: str, own: str) -> Stream:
        def check(log: Log) -> None:
            if settings in self._config.all_streams:
                check_shrunk(self._config, settings, log, own, self._discard)

        return open_stream(
            settings,
            folder,
            own,
            self._metrics,
            file=self._config.file,
            check=check,
            disk_share=self._share,
            now=self._now,
            unix_time=self._unix_time,
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
