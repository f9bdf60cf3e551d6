"""The words that SQLite and PostgreSQL share."""

from edge.errors import InputRejected
from edge_tools.fleet.records import Record

COLUMNS = "thing, boot, seq, topic, t, received, payload"
REJECTED_COLUMNS = "reason, detail, topic, sample, received"
TIME = "coalesce(t, received)"

# Sequence numbers count from 1 in each boot; those of a gateway's log go on over its boots (`store.is_of_a_log`).
# wanted: a condition; collate: what orders things as their groups are ordered.
GAPS = (
    "SELECT thing, boot, before + 1, seq - 1 FROM ("
    " SELECT thing, boot, seq, CASE WHEN boot = lag(boot) OVER one OR replace(thing, '/', '') <> thing"
    " THEN lag(seq, 1, CAST(0 AS BIGINT)) OVER one ELSE CAST(0 AS BIGINT) END AS before"
    " FROM telemetry WHERE {wanted} WINDOW one AS (PARTITION BY thing ORDER BY boot, seq)) AS pairs"
    " WHERE seq > before + 1 ORDER BY thing {collate}, boot, seq"
)


def conflict(record: Record) -> InputRejected:
    detail = f"{record.thing}, boot {record.boot}, seq {record.seq} is stored already with another content"
    return InputRejected("identity_conflict", detail)
