"""From one MQTT message to records and rejections. Pure."""

import re
from collections.abc import Sequence

from edge.errors import InputRejected
from edge.topics import matches
from edge_tools.fleet.batches import decode_batch
from edge_tools.fleet.records import Decoded, make_record, reject

_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_SINGLE = frozenset({"thing", "boot", "seq", "t", "encoding"})

UserProperties = Sequence[tuple[str, str]]


class Decoder:
    """batch_filters: the topics whose messages are batches; all others are single records."""

    def __init__(self, batch_filters: Sequence[str]) -> None:
        self._batch_filters = tuple(batch_filters)

    def decode(self, topic: str, payload: bytes, content_type: str, user: UserProperties, received: int) -> Decoded:
        """Never raises for what the message holds. received: Unix ms."""
        try:
            named = _named(user)
            if any(matches(one, topic) for one in self._batch_filters):
                return decode_batch(topic, payload, content_type, named.get("encoding", ""), received)
            boot, seq, t = (_number(named, name) for name in ("boot", "seq", "t"))
            return Decoded([make_record(topic, payload, received, thing=named.get("thing"), boot=boot, seq=seq, t=t)])
        except InputRejected as problem:
            return Decoded(rejections=[reject(problem, topic, payload, received)])


def _named(user: UserProperties) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, value in user:
        if name in _SINGLE and named.setdefault(name, value) != value:
            raise InputRejected("ambiguous_property", f"the user property {name} has two values")
    return named


def _number(named: dict[str, str], name: str) -> int | None:
    text = named.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text):
        raise InputRejected(f"bad_{name}", f"{name} is {text[:40]!r}, no number from 0 to 2^63-1")
    return int(text)
