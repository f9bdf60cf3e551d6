"""A stream with its export in a loop, a source that remembers and a cloud that answers when told to."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge.config import StreamSettings
from edge.log import Log, LogOptions
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.drain import Drain
from edge.outbox.opening import BOOT, next_boot, segment_bytes
from edge.outbox.stream import Stream
from edge.outbox.uploader import Uploader

WAIT_S = 120.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.001)


class Source:
    """An origin that writes down how everything ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        for receipt in receipts:
            assert receipt not in self.outcomes, f"{receipt} settled twice"
            self.outcomes[receipt] = outcome

    def receipts(self, outcome: Outcome) -> list[int]:
        return sorted(receipt for receipt, found in self.outcomes.items() if found is outcome)


class Cloud:
    """A target. answers: settles at once with this; None keeps all until `answer`."""

    def __init__(self, answers: Outcome | None = Outcome.TAKEN) -> None:
        self.answers = answers
        self.seen: list[Message] = []
        self.open: list[tuple[int, Origin]] = []

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        self.seen += messages
        if self.answers is None:
            self.open += [(message.receipt, origin) for message in messages]
        else:
            origin.settled([message.receipt for message in messages], self.answers)

    def answer(self, outcome: Outcome, count: int | None = None) -> None:
        some, self.open = self.open[:count], self.open[len(self.open) if count is None else count :]
        for receipt, origin in some:
            origin.settled([receipt], outcome)

    def named(self) -> dict[Reading, bytes]:
        """Each name once, in the order in which it was first seen."""
        found: dict[Reading, bytes] = {}
        for message in self.seen:
            for reading, payload in _records(message):
                assert found.setdefault(reading, payload) == payload
        return found

    def payloads(self) -> list[bytes]:
        return list(self.named().values())


def _records(message: Message) -> list[tuple[Reading, bytes]]:
    """Of a message, or of a batch as ndjson."""
    if message.reading is not None:
        return [(message.reading, message.payload)]
    rows = [json.loads(line) for line in message.payload.splitlines()]
    return [(Reading(row["thing"], row["boot"], row["seq"]), row["payload"].encode()) for row in rows]


class Rig:
    """One gateway's life with one stream; another Rig on the same folder is the next. now: seconds, may be moved."""

    def __init__(self, folder: Path, cloud: Cloud, *, window: int = 100, **settings: object) -> None:
        self.settings = msgspec.convert({"name": "s", "bytes_max": 4 << 20, **settings}, StreamSettings)
        self.shift_s = 0.0
        self.unix_s = 1_700_000_000.0
        self.metrics = Metrics()
        size = segment_bytes(self.settings.bytes_max)
        log = Log.open(str(folder / "s"), options=LogOptions(segment_bytes=size), metrics=self.metrics, name="s")
        boot = next_boot(log.state.get(BOOT), 0)
        log.put_state(BOOT, msgspec.msgpack.encode(boot))
        self.stream = Stream(
            self.settings,
            log,
            "g/s",
            self.metrics,
            boot=boot,
            system_boot="this",
            segment_bytes=size,
            now=self.now,
            unix_time=lambda: self.unix_s + self.shift_s,
        )
        self.cloud, self.source = cloud, Source()
        self.drain = Drain(cloud, window, self.now)
        self.uploader = Uploader(self.stream, self.metrics, "batch/g/s", self.now(), patient=True)
        self.drain.add(self.uploader)
        self._receipt = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.shift_s

    def start(self) -> None:
        self.stream.start()
        self.drain.pump()

    def readings(self, sequences: Sequence[int], *, thing: str = "b1", boot: int = 1, size: int = 0) -> list[int]:
        """Hand in one batch of a board's readings; returns their receipts."""
        messages = []
        for sequence in sequences:
            self._receipt += 1
            payload = b"%s %d %d" % (thing.encode(), boot, sequence) + random.Random(sequence).randbytes(size)
            messages.append(
                Message(f"dt/{thing}", payload, 1, False, self._receipt, None, Reading(thing, boot, sequence))
            )
        self.stream.send(messages, self.source)
        return [message.receipt for message in messages]

    def messages(self, payloads: Sequence[bytes], *, qos: int = 1, topic: str = "dt/x") -> list[int]:
        """Hand in one batch without readings."""
        messages = []
        for payload in payloads:
            self._receipt += 1
            messages.append(Message(topic, payload, qos, False, self._receipt))
        self.stream.send(messages, self.source)
        return [message.receipt for message in messages]

    async def taken(self) -> None:
        """Until everything handed in is settled or was turned away."""
        await until(lambda: not self.stream.is_busy)

    def stop(self) -> None:
        self.drain.stop()
        self.stream.close()

    def kill(self) -> None:
        """As kill -9: what was not committed is gone, what was under way is not known."""
        self.drain.stop()
        self.stream.abandon()
