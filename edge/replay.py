"""What the rules of a gateway file save before upload, over a recording: bytes raw, after the rules, and in batches.

Bytes are those of MQTT 5 PUBLISH packets with QoS 1 as the gateway writes them: topic, the reading's name, payload;
no topic aliases; without TLS and what lies below it. raw: each message on its own, as it came. rules: each row on its
own. batched: rows gathered as the rule's stream says, or as NDJSON in gzip where none of its targets is a stream that
gathers.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from edge.config import Config, StreamSettings
from edge.errors import InputRejected
from edge.messages import Message, Reading
from edge.mqtt.codes import V5
from edge.mqtt.publisher import Publisher
from edge.outbox import formats
from edge.outbox.marks import Marks
from edge.rules.build import ReadRule, output_topic
from edge.rules.payloads import decoder
from edge.rules.recorded import Recorded, Trial
from edge.rules.template import Template

_PACKET_BYTES_MAX = 268_435_455
_GATHERED = StreamSettings(name="replay", format="ndjson", gzip=True)


class Packets:
    """How many bytes messages take as packets."""

    def __init__(self) -> None:
        self._publisher = Publisher(V5, 0, _PACKET_BYTES_MAX, 1, True)
        self.bytes = self.messages = 0

    def add(self, message: Message) -> None:
        self.bytes += len(self._publisher.build(message, 1, False))
        self.messages += 1


class Batches:
    """Messages gathered as a stream gathers them."""

    def __init__(self, settings: StreamSettings, topic: str) -> None:
        self._settings, self._topic = settings, settings.batch_topic or topic
        self._packets = Packets()
        self._held: list[bytes] = []
        self._room = settings.batch_bytes_max
        self._since = 0.0

    @property
    def bytes(self) -> int:
        return self._packets.bytes

    @property
    def batches(self) -> int:
        return self._packets.messages

    def add(self, message: Message, now: float) -> None:
        """now: seconds; the time that batches wait by."""
        self.pass_time(now)
        row = formats.row(message, self._settings.format)
        if self._held and len(row) > self._room:
            self.finish()
        if not self._held:
            self._since = now
        self._held.append(row)
        self._room -= len(row)
        if len(self._held) >= self._settings.batch_records_max:
            self.finish()

    def pass_time(self, now: float) -> None:
        if self._held and now - self._since >= self._settings.batch_wait_s:
            self.finish()

    def finish(self) -> None:
        if self._held:
            payload, properties = formats.build(self._held, self._settings.format, gzip=self._settings.gzip)
            self._packets.add(Message(self._topic, payload, 1, properties=properties))
            self._held = []
        self._room = self._settings.batch_bytes_max


class Report(msgspec.Struct, frozen=True):
    """rule: its name, empty for all of them together, where a message counts once and all rows share batches."""

    rule: str
    messages: int
    rows: int
    batches: int
    bytes_raw: int
    bytes_rules: int
    bytes_batched: int
    payloads_rejected: int
    dropped: dict[str, int]

    @property
    def saved_percent(self) -> float:
        return round(100 - 100 * self.bytes_batched / self.bytes_raw, 1) if self.bytes_raw else 0.0

    def json(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self), "saved_percent": self.saved_percent}


class _One:
    """One rule at work."""

    def __init__(self, read: ReadRule, gateway: str, batches: Batches) -> None:
        settings = read.settings
        self.trial = Trial(read.compile(), decoder(settings.payload, settings.columns), Marks({}))
        self._template = Template(output_topic(settings))
        self._thing = f"{gateway}/rule/{settings.name}"
        self.raw, self.out, self.batches = Packets(), Packets(), batches
        self.dropped: dict[str, int] = {}

    def messages(self, rows: Sequence[Any], now: float) -> list[Message]:
        made = []
        for row in rows:
            try:
                topic, payload = self._template.topic(row), msgspec.json.encode(row)
            except (InputRejected, ValueError, TypeError, RecursionError) as error:
                reason = error.reason if isinstance(error, InputRejected) else "row_not_json"
                self.dropped[reason] = self.dropped.get(reason, 0) + 1
                continue
            reading = Reading(self._thing, 1, self.out.messages + 1)
            message = Message(topic, payload, 1, reading=reading, time_ms=round(now * 1000))
            self.out.add(message)
            self.batches.add(message, now)
            made.append(message)
        return made

    def report(self) -> Report:
        trial = self.trial
        return Report(
            trial.rule.name, trial.offered, self.out.messages, self.batches.batches, self.raw.bytes, self.out.bytes,
            self.batches.bytes, trial.rejected, {**trial.rule.counts, **self.dropped},
        )  # fmt: skip


class Replay:
    """All rules over one recording."""

    def __init__(self, config: Config, rules: Sequence[ReadRule]) -> None:
        gateway = config.gateway.name
        streams = {f"stream:{stream.name}": stream for stream in config.streams if stream.format != "message"}
        self._rules = []
        self._shared: dict[str, Batches] = {}
        for read in rules:
            name = next((name for name in read.settings.to if name in streams), "")
            settings = streams.get(name, _GATHERED)
            topic = f"batch/{gateway}/{settings.name}"
            shared = self._shared.setdefault(name, Batches(settings, topic))
            self._rules.append((_One(read, gateway, Batches(settings, topic)), shared))
        self._raw = Packets()
        self._readings: dict[str, int] = {}
        self._now = 0.0

    def feed(self, recorded: Recorded) -> None:
        self._now = now = recorded.time
        taken, message = False, None
        for one, shared in self._rules:
            before = one.trial.offered
            rows = one.trial.feed(recorded)
            if one.trial.offered > before:
                message = message or self._as_it_came(recorded)
                one.raw.add(message)
                if not taken:
                    self._raw.add(message)
                    taken = True
            one.batches.pass_time(now)
            for made in one.messages(rows, now):
                shared.add(made, now)
        for batches in self._shared.values():
            batches.pass_time(now)

    def _as_it_came(self, recorded: Recorded) -> Message:
        """A board's message is a reading, which has a name."""
        message = recorded.message()
        reading = message.reading
        if reading is None:
            if not recorded.source.startswith("board:"):
                return msgspec.structs.replace(message, qos=1)
            thing = recorded.source.removeprefix("board:")
            sequence = self._readings[thing] = self._readings.get(thing, 0) + 1
            reading = Reading(thing, 1, sequence)
        return msgspec.structs.replace(message, qos=1, reading=reading, time_ms=round(recorded.time * 1000))

    def finish(self) -> list[Report]:
        """A report a rule, and one of all."""
        reports = []
        for one, shared in self._rules:
            for made in one.messages(one.trial.finish(), self._now):
                shared.add(made, self._now)
            one.batches.finish()
            reports.append(one.report())
        for batches in self._shared.values():
            batches.finish()
        dropped: dict[str, int] = {}
        for report in reports:
            for reason, many in report.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + many
        whole = Report(
            "", self._raw.messages, sum(one.rows for one in reports),
            sum(one.batches for one in self._shared.values()), self._raw.bytes,
            sum(one.bytes_rules for one in reports), sum(one.bytes for one in self._shared.values()),
            sum(one.payloads_rejected for one in reports), dropped,
        )  # fmt: skip
        return [*reports, whole]
