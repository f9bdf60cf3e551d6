"""What a thinning is about to cost, committed before it begins: a crash after it leaves nothing uncounted. Pure.

Invariants: the intent is in the state before its segment is replaced, and goes with the commit that enters its counts
into the ledger. A start that finds one asks the log whether the replacement took place, and counts it if it did.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from edge.log import Log
from edge.outbox.ledger import Ledger, Shed

INTENT: Final = "thinning"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, dict[str, list[Shed]]]).decode


def intent(token: bytes, shed: Iterable[tuple[str, int, int]]) -> bytes:
    """token: of the replacement; shed: the names of what goes."""
    ledger = Ledger({})
    for thing, boot, sequence in shed:
        ledger.add(thing, boot, sequence, "thinned")
    return _encode((token, ledger.things))


def count_intent(log: Log, ledger: Ledger) -> bool:
    """Enter what a thinning took, if it took place. True: there is an intent, which now is to go."""
    value = log.state.get(INTENT)
    if not value:
        return False
    try:
        token, things = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    if log.replaced(token):
        for thing, entries in things.items():
            for entry in entries:
                ledger.take(thing, entry)
    return True
