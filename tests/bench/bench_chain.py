"""The whole chain on one core: eight boards on serial lines (ptys), two rules, a function, a stream, out over TLS.

Each reading goes into a stream on disk (`commit = "every message"`) and from there to the broker that stands for the
cloud, and through two rules beside: one passes on about one reading in a hundred, and the function is called with each
of these and publishes it again; the other counts and averages each board's within a second. Beside it, in turns, the
same gateway without rules and function, and one without the stream either, which is what the `relay` bench measures.
The clock runs from the boards' first reading until the last one has arrived at the cloud; CPU and memory are those of
the gateway and of all that it started (the function's worker too), until the last row and result have arrived as well.
Every reading, row and result is checked; of the second rule the rows must account for each reading.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from edge.mqtt import packets as p
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure
from tests.bench.processes import cpu_s, family, pss_mb
from tests.bench.relay.contenders import ProcessRelay, gateway_with_boards
from tests.bench.relay.flow import QUIET_S, SETTLING_S, brokers, on_the_others_core
from tests.bench.relay.ports import Port, serve
from tests.bench.relay.raw import HOST, Counter, check_in_order, numbers, packet_bytes, payload

DESCRIPTION = "eight boards' frames by way of two rules, a function and a durable stream to a broker over TLS"
CHAIN, PLAIN, RELAY = "chain", "without_rules_and_function", "without_stream_either"
PORTS = 8
ABOVE_C = 99
ROWS_S = 10.0
READINGS, ROWS = "bench/#", ("alarm/+", "mean/+", "told/+")
RULES = f"""
[[rule]]
name = "alarm"
to = ["cloud"]
topic = "alarm/${{board}}"
sql = "SELECT topic(2) AS board, n, c FROM 'bench/+' WHERE c > {ABOVE_C}"

[[rule]]
name = "mean"
to = ["cloud"]
topic = "mean/${{board}}"
sql = "SELECT topic(2) AS board, avg(c) AS c, count(*) AS n FROM 'bench/+' GROUP BY topic(2), TUMBLINGWINDOW(ss, 1)"

[[function]]
name = "tell"
file = "tell.py"
from = ["rule:alarm"]
subscribe = ["alarm/+"]
publish = ["told/+"]
to = ["cloud"]
"""
CODE = """
from edge import on, publish


@on("alarm/+")
def tell(message):
    publish("told" + message.topic[5:], message.payload)
"""


class Run(msgspec.Struct, frozen=True):
    msgs_per_s: float
    cpu_s_per_100k: float
    pss_mb: float


class _Fields(msgspec.Struct):
    n: str
    c: float


class _Mean(msgspec.Struct):
    c: float
    n: int


_fields = msgspec.json.Decoder(_Fields).decode
_mean = msgspec.json.Decoder(_Mean).decode


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
    count = context.pick(200_000, 40_000) // PORTS
    with on_the_others_core(), brokers(context, server) as (_, cloud):

        def turn(rules: str, *, durable: bool) -> Callable[[], Run]:
            return lambda: _measure(context, cloud, client, count, rules, durable=durable)

        results = context.interleaved(
            {CHAIN: turn(RULES, durable=True), PLAIN: turn("", durable=True), RELAY: turn("", durable=False)}
        )
    return [
        _figure(results, "msgs_per_s", "1/s", higher=True),
        _figure(results, "cpu_s_per_100k", "s"),
        _figure(results, "pss_mb", "MB"),
    ]


def _figure(results: Mapping[str, Sequence[Run]], name: str, unit: str, *, higher: bool = False) -> Figure:
    samples = {who: [getattr(one, name) for one in runs] for who, runs in results.items()}
    ours = samples.pop(CHAIN)
    return figure(name, ours, unit, "higher" if higher else "lower", references=samples)


def _measure(context: Context, cloud: Mosquitto, client: Credential, count: int, rules: str, *, durable: bool) -> Run:
    """count: of readings a board."""
    ports = [Port(f"board{number}") for number in range(PORTS)]
    folder = context.folder("gateway")
    (folder / "tell.py").write_text(CODE)
    relay = gateway_with_boards(ports, cloud.tls_port, folder, client, durable=durable, sections=rules)
    readings, rows = Counter(cloud.port, "readings", READINGS), Counter(cloud.port, "rows", *ROWS)
    relay.start()
    try:
        sent = {}
        for place, port in enumerate(ports):
            port.connect()
            sent[port.name] = range(place * count, (place + 1) * count)
            port.load(sent[port.name])
        before_s, began = _spent_s(relay), time.monotonic()
        ended = serve(ports, readings, count * PORTS * packet_bytes(ports[0].topic), QUIET_S)
        if rules:
            _receive_rows(rows, sent)
        time.sleep(SETTLING_S)
        spent_s = _spent_s(relay) - before_s
        weight = sum(map(pss_mb, family(relay.pid)))
        _check_readings(readings.found(), sent)
        if rules:
            _check_alarms(rows.found(), sent)
    finally:
        relay.stop()
        readings.close()
        rows.close()
        for port in ports:
            port.close()
    return Run(count * PORTS / (ended - began), spent_s * 100_000 / (count * PORTS), weight)


def _spent_s(relay: ProcessRelay) -> float:
    return sum(map(cpu_s, family(relay.pid)))


def _receive_rows(rows: Counter, sent: Mapping[str, Sequence[int]]) -> None:
    """Until the means account for every reading, whose last windows close within a second of the last one, and every
    alarm has been told."""
    end = time.monotonic() + ROWS_S
    wanted = sum(_fields(payload(number)).c > ABOVE_C for of_board in sent.values() for number in of_board)
    while not (_means_are_whole(rows.found(), sent) and len(_payloads(rows.found(), "told")) >= wanted):
        if time.monotonic() > end:
            raise NoFigure("the means do not account for every reading, or alarms were not told")
        rows.receive(1 << 40, SETTLING_S, until=time.monotonic() + SETTLING_S)


def _means_are_whole(found: Sequence[p.Publish], sent: Mapping[str, Sequence[int]]) -> bool:
    """Raises NoFigure when they say what was not sent."""
    many, totals = dict.fromkeys(sent, 0), dict.fromkeys(sent, 0.0)
    for one in found:
        kind, _, board = one.topic.partition("/")
        if kind == "mean":
            row = _mean(one.payload)
            many[board] += row.n
            totals[board] += row.c * row.n
    if any(many[board] < len(numbers) for board, numbers in sent.items()):
        return False
    for board, of_board in sent.items():
        total = sum(_fields(payload(number)).c for number in of_board)
        check_all_arrived(f"readings in the means of {board}", len(of_board), many[board])
        if abs(totals[board] - total) > 1e-6 * total:
            raise NoFigure(f"rows of means of {board}: not the averages of what was sent")
    return True


def _check_readings(found: Sequence[p.Publish], sent: Mapping[str, Sequence[int]]) -> None:
    for board, of_board in sent.items():
        arrived = numbers([one for one in found if one.topic == f"bench/{board}"])
        check_all_arrived(f"readings of {board}", len(of_board), len(set(arrived)))
        check_in_order(f"readings of {board}", arrived)


def _check_alarms(found: Sequence[p.Publish], sent: Mapping[str, Sequence[int]]) -> None:
    """The first rule's rows, and what the function told of them."""
    for board, of_board in sent.items():
        fields = [_fields(payload(number)) for number in of_board]
        wanted = [msgspec.json.encode({"board": board, "n": one.n, "c": one.c}) for one in fields if one.c > ABOVE_C]
        for kind in ("alarm", "told"):
            arrived = _payloads([one for one in found if one.topic == f"{kind}/{board}"], kind)
            check_all_arrived(f"{kind}/{board}", len(wanted), len(arrived))
            if arrived != wanted:
                raise NoFigure(f"{kind}/{board}: not what was due, in order")


def _payloads(found: Sequence[p.Publish], kind: str) -> list[bytes]:
    """Those on its topics, each once, as they came first."""
    return list(dict.fromkeys(one.payload for one in found if one.topic.startswith(f"{kind}/")))
