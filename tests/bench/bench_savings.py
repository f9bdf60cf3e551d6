"""What rules and batches save before upload, over a day of eight boards: bytes of MQTT packets, by `edge replay`."""

from edge.config import parse_config
from edge.replay import Replay, Report
from edge.rules.build import read_rules
from edge.rules.recorded import read_lines
from tests.bench import day
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure

DESCRIPTION = "bytes of a day of 8 boards before upload: raw, after rules, in batches"

CONFIG = """
[gateway]
name = "g"
data_dir = "d"
[cloud]
host = "h"
tls = false
[[stream]]
name = "readings"
format = "ndjson"
gzip = true
batch_wait_s = 300.0
[[rule]]
name = "mean"
sql = \"\"\"
SELECT topic(2) AS board, avg(c) AS c_avg, min(c) AS c_min, max(c) AS c_max, count(*) AS n
FROM 'dt/+/temp' GROUP BY topic(2), TUMBLINGWINDOW(mi, 1)\"\"\"
topic = "agg/${board}/temp"
to = ["stream:readings"]
[[rule]]
name = "humidity"
sql = "SELECT topic(2) AS board, rh, up_ms FROM 'dt/+/hum' WHERE changed(rh, 0.5)"
topic = "dt/${board}/hum"
to = ["stream:readings"]
[[rule]]
name = "door"
sql = "SELECT *, topic(2) AS board FROM 'dt/+/door'"
topic = "dt/${board}/door"
to = ["stream:readings"]
"""


def run(context: Context) -> list[Figure]:
    config = parse_config(CONFIG, str(context.workdir / "gateway.toml"))
    rules = read_rules(config)
    wholes = []
    for seed in range(1, context.repeats + 1):
        recorded = day.messages(seed)
        sent = day.counts(recorded)
        context.progress(f"  day {seed}: {sent.messages:,} messages")
        file = context.workdir / f"day-{seed}.jsonl"
        file.write_bytes(b"".join(day.lines(recorded)))
        replay = Replay(config, rules)
        with file.open("rb") as opened:
            for one in read_lines(opened):
                replay.feed(one)
        reports = {report.rule: report for report in replay.finish()}
        _check(sent, reports)
        wholes.append(reports[""])
    raw = [float(one.bytes_raw) for one in wholes]
    rows = [float(one.bytes_rules) for one in wholes]
    batched = [float(one.bytes_batched) for one in wholes]
    return [
        figure("bytes_raw", raw, "B", "lower"),
        figure("bytes_rules", rows, "B", "lower", references={"bytes_raw": raw}),
        figure("bytes_batched", batched, "B", "lower", references={"bytes_raw": raw, "bytes_rules": rows}),
        figure("ratio", [a / b for a, b in zip(raw, batched, strict=True)], "×", "higher"),
    ]


def _check(sent: day.Counts, reports: dict[str, Report]) -> None:
    """Every message was seen, every event came through, nothing was left out."""
    check_all_arrived("messages of the day", sent.messages, reports[""].messages)
    check_all_arrived("rows of doors", sent.doors, reports["door"].rows)
    if reports[""].dropped or reports[""].payloads_rejected:
        raise NoFigure(f"left out: {reports[''].dropped}, {reports[''].payloads_rejected} payloads")
    least = day.BOARDS * day.DAY_S // 60 // 2
    if reports["mean"].rows < least:
        raise NoFigure(f"rows of means: {reports['mean'].rows}, at least {least} expected")
