"""One link: hello, commands with answers, statistics, and what a hostile or broken end may do to it and to others."""

import random
import tracemalloc

import pytest

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.board import LINES_A_SECOND_MAX
from edge.boards.frames import FrameReader, build_frame
from edge.boards.link import (
    Hello,
    HelloRequest,
    RequestFrame,
    Time,
    Welcome,
    decode_link,
    decode_request,
    encode_link,
    encode_mqttsn,
    encode_request,
)
from edge.boards.requests import REQUESTS_MAX
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message, Outcome, Properties
from tests.boards.rig import Cable, Rig
from tests.boards.sn_client import SnClient, Told
from tests.fakes.board import FakeBoard


def command(n: int, payload: bytes = b"ping", qos: int = 1) -> Message:
    properties = Properties(response_topic=f"answers/{n}", correlation_data=b"c%d" % n)
    return Message("cmd/b1/ping", payload, qos, receipt=n, properties=properties)


def send(rig: Rig, *messages: Message) -> Told:
    told = Told()
    rig.gateway.target("boards").send(messages, told)
    return told


def answers(rig: Rig) -> list[Message]:
    return [one.message for one in rig.taken if one.message.topic.startswith("answers/")]


def control(rig: Rig, name: str = "b1") -> list[object]:
    """The LINK messages that wait to be written."""
    contents = FrameReader().feed(rig.boards[name].output(rig.now))
    return [decode_link(content) for content in contents if content[0] == 3]


def test_an_opened_port_is_asked_for_a_hello_once_and_answers_with_a_welcome() -> None:
    rig = Rig("b1")
    assert control(rig) == [HelloRequest()]
    hello = Hello(99, 700, 5, "b1", "fw-2", 4)
    rig.boards["b1"].receive(build_frame(encode_link(hello)), rig.now)
    said = control(rig)
    assert said[0] == Welcome(16, 2048, 1_700_000_000_000)
    status = rig.boards["b1"].status()
    assert (status.client_id, status.boot, status.firmware, status.reset_reason) == ("b1", 5, "fw-2", "watchdog")
    assert (status.window, status.port_state, status.connected) == (16, "open", False)


def test_a_plain_client_gets_no_frames_but_mqtt_sn_after_the_hello_request() -> None:
    rig = Rig("b1")
    client = SnClient(rig, "b1")
    client.take()
    client.other.clear()
    client.connect("b1", keep_alive_s=0)
    topic_id = client.subscribe("cmd/b1/ping")
    send(rig, command(1))
    assert client.take() == [sn.Publish(topic_id, b"ping", 1, 1)]
    client.after(1000)
    assert client.other == []


def test_the_hello_of_another_board_is_told_counted_and_not_welcomed(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("b1", "b2")
    control(rig)
    rig.boards["b1"].receive(build_frame(encode_link(Hello(16, 512, 1, "b2"))), rig.now)
    assert control(rig) == []
    assert rig.rejected("b1", "hello_foreign") == 1
    assert rig.boards["b1"].status().rejected == {"hello_foreign": 1}
    [record] = caplog.records
    assert record.getMessage() == "board_refused"
    assert record.__dict__["fields"]["said"] == "b2"


@pytest.mark.parametrize("loss", [0.0, 0.001])
def test_commands_are_answered_once_with_their_correlation_data(loss: float) -> None:
    rig = Rig("b1", cable=lambda seed: Cable(loss=loss, seed=seed), settings=MqttSnSettings(retry_s=1.0, retries=20))
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    told = send(rig, *(command(n, b"p%d" % n) for n in range(1, 41)))
    rig.until(lambda: len(answers(rig)) >= 40 and len(told.ended) == 40, 120)
    rig.run(5)
    got = {message.topic: message for message in answers(rig)}
    assert len(answers(rig)) == 40
    for n in range(1, 41):
        answer = got[f"answers/{n}"]
        assert answer.payload == b"p%d" % n
        assert answer.properties == Properties(correlation_data=b"c%d" % n)
    assert set(told.ended.values()) == {"taken"}
    assert {one.source for one in rig.taken} == {"board:b1"}


def test_an_answer_is_acknowledged_when_it_is_settled_and_repeated_if_congested() -> None:
    outcomes = [None, Outcome.CONGESTED, Outcome.TAKEN]
    rig = Rig("b1", settle=lambda message: outcomes.pop(0))
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    send(rig, command(1))
    rig.until(lambda: len(rig.waiting) == 1)
    rig.run(5)
    assert fake.counters["commands_answered"] == 0
    rig.settle_waiting(Outcome.CONGESTED)
    rig.until(lambda: fake.counters["commands_answered"] == 1)
    assert outcomes == []


def test_answers_that_nobody_asked_for_are_counted() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    frame = RequestFrame(999, sn.Publish(1, b"?", 44, 1))
    rig.boards["b1"].receive(build_frame(encode_request(frame)), rig.now)
    assert rig.rejected("b1", "request_id_unknown") == 1
    assert not answers(rig)


def test_requests_without_answers_are_bounded_and_forgotten() -> None:
    rig = Rig("b1", fake=lambda name: FakeBoard(name, answer=lambda topic, payload: None))
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    told = send(rig, *(command(n) for n in range(1, REQUESTS_MAX + 11)))
    rig.run(20)
    assert len(fake.commands) == REQUESTS_MAX
    assert len(told.ended) == REQUESTS_MAX
    rig.run(60)
    assert len(fake.commands) == REQUESTS_MAX + 10
    assert rig.metrics.snapshot()['requests_expired{board="b1"}'] >= REQUESTS_MAX


def test_a_request_leaves_as_one_frame_with_its_id() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    send(rig, command(1))
    rig.run(0.5)
    send(rig, command(2))
    contents = FrameReader().feed(rig.boards["b1"].output(rig.now))
    [request] = [decode_request(content) for content in contents if content[0] == 5]
    assert (request.request_id, request.publish.payload) == (2, b"ping")


def test_a_command_in_the_moment_of_a_restart_reaches_the_board_after_it() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    rig.run(0.1)
    told = send(rig, Message("cmd/b1/ping", b"x", 1, receipt=1))
    fake.restart(rig.now)
    rig.until(lambda: bool(told.ended))
    assert told.ended == {1: "congested"}
    rig.until(lambda: fake.ready)
    told = send(rig, Message("cmd/b1/ping", b"x", 1, receipt=1))
    rig.until(lambda: bool(told.ended))
    assert (told.ended, fake.commands) == ({1: "taken"}, [("cmd/b1/ping", b"x")])


def test_statistics_are_asked_for_and_shown() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    for _ in range(3):
        fake.produce()
    rig.run(11)
    status = rig.boards["b1"].status()
    assert status.counters["readings_produced"] == 3
    assert (status.boot, status.reading_boot, status.last_sequence) == (1, 1, 3)
    assert status.connected
    assert status.uptime_ms


def test_the_time_is_told_now_and_then() -> None:
    rig = Rig("b1")
    rig.until(lambda: rig.fakes["b1"].ready)
    assert rig.fakes["b1"].unix_time_ms == 1_700_000_000_000
    rig.now += 700
    rig.boards["b1"].tick(rig.now)
    assert Time(1_700_000_000_000) in control(rig)


def test_log_text_and_broken_frames_between_cost_nothing_else() -> None:
    lines: list[str] = []
    rig = Rig("b1")
    rig.boards["b1"]._lines = lines.extend
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    for n in range(20):
        fake.produce()
        fake.tick(rig.now)
        data = fake.output()
        rig.boards["b1"].receive(b"boot: started\r\n" + data + b"\0\x05\x99\xfe\x01" + b"\0" * (n % 3), rig.now)
        fake.receive(rig.boards["b1"].output(rig.now), rig.now)
    rig.until(lambda: fake.idle)
    assert rig.readings("b1") == [(1, n) for n in range(1, 21)]
    assert lines[:1] == ["boot: started"]
    assert rig.boards["b1"].status().rejected


def test_a_board_that_babbles_does_not_fill_the_log() -> None:
    lines: list[str] = []
    rig = Rig("b1")
    board = rig.boards["b1"]
    board._lines = lines.extend
    for _ in range(50):
        rig.now += 0.01
        board.receive(b"babble\n\0" * 50, rig.now)
    assert len(lines) == LINES_A_SECOND_MAX
    assert rig.count("board_log_lines_dropped", board="b1") == 2500 - LINES_A_SECOND_MAX
    rig.now += 1
    board.receive(b"again\n\0", rig.now)
    assert lines[-1] == "again"


def test_an_unfinished_segment_is_closed_by_time() -> None:
    rig = Rig("b1")
    board = rig.boards["b1"]
    board.receive(b"\0\x07\x01\x02", rig.now)
    due = board.deadline()
    assert due is not None
    assert due <= rig.now + 0.25
    rig.now += 0.3
    board.tick(rig.now)
    assert board.status().rejected == {"timeout": 1}
    board.receive(build_frame(encode_link(Hello(4, 512, 1, "b1"))), rig.now)
    assert board.status().boot == 1


def test_a_gateway_that_reads_late_does_not_take_it_for_the_boards_silence() -> None:
    rig = Rig("b1")
    frame = build_frame(encode_link(Hello(4, 512, 1, "b1")))
    rig.boards["b1"].receive(frame[:7], rig.now)
    rig.now += 3
    rig.boards["b1"].receive(frame[7:], rig.now)
    assert rig.boards["b1"].status().boot == 1
    assert rig.boards["b1"].status().rejected == {}


def test_a_board_that_never_reads_costs_bounded_memory_and_nobody_else() -> None:
    boards = [BoardSettings(name=name, port=f"/dev/{name}", output_bytes_max=4096) for name in ("b1", "b2")]
    rig = Rig(boards=boards, settings=MqttSnSettings(retry_s=10, retries=3, queue_messages_max=50))
    deaf = rig.fakes.pop("b1")
    board = rig.boards["b1"]
    for data in (encode_link(Hello(255, 512, 1, "b1")), encode_mqttsn(sn.Connect("b1", 0, clean_session=True))):
        board.receive(build_frame(data), rig.now)
    board.receive(build_frame(encode_mqttsn(sn.Subscribe(1, "a/b", qos=1))), rig.now)
    rig.until(lambda: rig.fakes["b2"].ready)
    told = send(rig, *(Message("a/b", b"x" * 200, 1, receipt=n) for n in range(1, 200)))
    send(rig, *[Message("a/b", b"x" * 200)] * 500)
    assert list(told.ended.values()).count("congested") > 100
    assert board._out_bytes <= 4096
    for _ in range(500):
        board.receive(build_frame(encode_mqttsn(sn.PingReq())), rig.now)
    assert board._out_bytes <= 4096
    assert rig.count("output_dropped", board="b1") > 0
    rig.fakes["b2"].produce()
    rig.until(lambda: rig.fakes["b2"].idle)
    heard = FrameReader().feed(board.output(rig.now))
    assert len(heard) > 10
    assert board.output(rig.now), "what waited for room goes on"
    assert deaf.id == "b1"


def test_a_closed_port_keeps_sessions_and_their_messages() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    rig.boards["b1"].closed("unplugged")
    told = send(rig, Message("cmd/b1/ping", b"x", 1, receipt=1))
    assert rig.boards["b1"].output(rig.now) == b""
    rig.run(3)
    assert told.ended == {}
    rig.boards["b1"].opened(rig.now)
    rig.until(lambda: bool(told.ended))
    assert told.ended == {1: "taken"}
    assert rig.boards["b1"].status().port_state == "open"


def test_a_board_that_stays_away_is_lost_while_the_port_is_closed() -> None:
    rig = Rig("b1")
    rig.until(lambda: rig.fakes["b1"].ready)
    rig.boards["b1"].closed("unplugged")
    for _ in range(100):
        rig.now += 1
        rig.boards["b1"].tick(rig.now)
    assert rig.count("clients_lost", board="b1") == 1
    assert rig.boards["b1"].status().port_cause == "unplugged"


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_counted_memory_stays_flat_and_the_next_frame_is_heard(seed: int) -> None:
    rig = Rig("b1")
    rng = random.Random(seed)
    board = rig.boards["b1"]
    for _ in range(100):
        board.receive(rng.randbytes(rng.randrange(3000)), rig.now)
        board.output(rig.now)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        board.receive(rng.randbytes(rng.randrange(3000)), rig.now)
        board.output(rig.now)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    assert sum(board.status().rejected.values()) > 100
    board.receive(b"\0" + build_frame(encode_link(Hello(4, 512, 3, "b1"))), rig.now)
    assert board.status().boot == 3


@pytest.mark.parametrize("channel", range(1, 6))
def test_random_contents_in_whole_frames_raise_nothing(channel: int) -> None:
    rng = random.Random(channel)
    rig = Rig("b1")
    rig.until(lambda: rig.fakes["b1"].ready)
    board = rig.boards["b1"]
    for _ in range(3000):
        size = rng.choice((0, 1, 2, 5, 9, 12, 17, 25, 40, 300))
        body = bytearray(rng.randbytes(size))
        if channel == 1 and size > 1:
            body[0], body[1] = (size & 0xFF) or 1, rng.randrange(0x1E)
        if channel == 2 and size > 11:
            body[:11] = bytes(
                (0, 0, 0, rng.randrange(3), 0, 0, 0, rng.randrange(9), rng.randrange(3), (size - 9) & 0xFF, 0x0C)
            )
        if channel == 3 and size:
            body[0] = rng.randrange(9)
        board.receive(build_frame(bytes((channel,)) + bytes(body)), rig.now)
        board.tick(rig.now)
        board.output(rig.now)
        rig.now += 0.01
    rig.run(40)
    rig.fakes["b1"].restart(rig.now)
    rig.fakes["b1"].produce()
    rig.until(lambda: rig.fakes["b1"].idle, 100)
    assert rig.readings("b1")[-1] == (rig.fakes["b1"].boot, 1), "what a whole board says is still heard"


def test_every_single_bit_flip_of_a_session_is_survived() -> None:
    packets: list[sn.Packet] = [
        sn.Connect("b1", 30, clean_session=True),
        sn.Register(0, 1, "t/x"),
        sn.Publish(1, b"data", 2, 1),
        sn.Publish(1, b"data", 3, 2),
        sn.PubRel(3),
        sn.Subscribe(4, "a/+", qos=1),
        sn.Unsubscribe(5, "a/+"),
        sn.PingReq("b1"),
        sn.WillTopicUpd("w", 1),
        sn.WillMsgUpd(b"w"),
        sn.Disconnect(10),
    ]
    rig = Rig("b1")
    board = rig.boards["b1"]
    for packet in packets:
        raw = mqttsn.encode(packet)
        for bit in range(len(raw) * 8):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            for one in (mqttsn.encode(packets[0]), bytes(flipped), raw):
                board.receive(build_frame(b"\x01" + one), rig.now)
            board.output(rig.now)
    client = SnClient(rig, "b1")
    client.say(sn.Disconnect())
    client.connect("b1")
    topic_id = client.register("t/end")
    taken = len(rig.taken)
    assert client.say(sn.Publish(topic_id, b"end", 7, 1)) == [sn.PubAck(topic_id, 7)]
    assert [one.message.payload for one in rig.taken[taken:]] == [b"end"]
