"""The words that SQLite and PostgreSQL share."""

from edge.errors import InputRejected
from edge_tools.fleet.records import Record

COLUMNS = "thing, boot, seq, topic, t, received, payload"
REJECTED_COLUMNS = "reason, detail, topic, sample, received"
TIME = "coalesce(t, received)"

# Sequence numbers count from 1. wanted: a condition; collate: what orders things as their groups are ordered.
GAPS = (
    "SELECT thing, boot, before + 1, seq - 1 FROM ("
    " SELECT thing, boot, seq, lag(seq, 1, CAST(0 AS BIGINT)) OVER (PARTITION BY thing, boot ORDER BY seq) AS before"
    " FROM telemetry WHERE {wanted}) AS pairs"
    " WHERE seq > before + 1 ORDER BY thing {collate}, boot, seq"
)


def conflict(record: Record) -> InputRejected:
    detail = f"{record.thing}, boot {record.boot}, seq {record.seq} is stored already with another content"
    return InputRejected("identity_conflict", detail)
