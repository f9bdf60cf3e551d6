"""A board that comes back: replugged, reset, or unheard for a while. What becomes of commands, and what status says."""

import pytest

from edge.boards.board import HELLO_AGAIN_S
from edge.boards.frames import FrameReader, build_frame
from edge.boards.gateway import SETTLING_S
from edge.boards.link import Hello, HelloRequest, Stats, decode_link, encode_link
from edge.messages import Message, Properties
from tests.boards.rig import Rig
from tests.boards.sn_client import SnClient, Told
from tests.fakes.board import FakeBoard


def command(n: int, qos: int = 1) -> Message:
    properties = Properties(response_topic=f"answers/{n}", correlation_data=b"c%d" % n)
    return Message("cmd/b1/ping", b"p%d" % n, qos, receipt=n, properties=properties)


def send(rig: Rig, *messages: Message) -> Told:
    told = Told()
    rig.gateway.target("boards").send(messages, told)
    return told


def answers(rig: Rig) -> list[Message]:
    return [one.message for one in rig.taken if one.message.topic.startswith("answers/")]


def ready(fake: FakeBoard | None = None) -> tuple[Rig, FakeBoard]:
    rig = Rig("b1", fake=lambda name: fake or FakeBoard(name))
    rig.until(lambda: rig.fakes["b1"].ready)
    rig.run(0.1)
    return rig, rig.fakes["b1"]


def channels(rig: Rig) -> list[int]:
    return [content[0] for content in FrameReader().feed(rig.boards["b1"].output(rig.now))]


def replug(rig: Rig) -> None:
    rig.boards["b1"].closed("unplugged")
    rig.boards["b1"].opened(rig.now)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_request_between_the_reopening_of_the_port_and_the_hello_waits_and_is_answered(qos: int) -> None:
    rig, fake = ready()
    if qos < 2:
        send(rig, command(1))
        rig.until(lambda: len(answers(rig)) == 1)
    replug(rig)
    send(rig, command(2, qos))
    rig.until(lambda: any(one.topic == "answers/2" for one in answers(rig)))
    [answer] = [one for one in answers(rig) if one.topic == "answers/2"]
    assert answer.properties == Properties(correlation_data=b"c2")
    assert (b"p2" in [payload for _, payload in fake.commands], len(fake.commands)) == (True, 1 + (qos < 2))


def test_what_asks_for_no_answer_does_not_wait_for_the_hello() -> None:
    rig, fake = ready()
    send(rig, command(1))
    rig.until(lambda: len(answers(rig)) == 1)
    fake._hello_due = float("inf")
    replug(rig)
    rig.boards["b1"].output(rig.now)
    send(rig, Message("cmd/b1/ping", b"plain", 1, receipt=2))
    assert channels(rig) == [1]


def test_a_board_that_no_longer_says_hello_is_asked_again_and_then_taken_for_a_plain_client() -> None:
    rig, _ = ready()
    send(rig, command(1))
    rig.until(lambda: len(answers(rig)) == 1)
    replug(rig)
    rig.boards["b1"].output(rig.now)
    send(rig, command(2))
    asked, until = 0, rig.now + SETTLING_S
    while rig.now < until - 0.2:
        rig.now += 0.1
        rig.boards["b1"].tick(rig.now)
        for content in FrameReader().feed(rig.boards["b1"].output(rig.now)):
            assert content[0] == 3, "no message leaves before the hello"
            asked += decode_link(content) == HelloRequest()
    assert asked >= (SETTLING_S - 1) / HELLO_AGAIN_S - 1
    rig.now += 0.3
    assert rig.boards["b1"].deadline() is not None
    rig.boards["b1"].tick(rig.now)
    assert channels(rig) == [1], "what waited goes as to a plain client"
    for _ in range(100):
        rig.now += 0.1
        rig.boards["b1"].tick(rig.now)
        assert 3 not in channels(rig)


def test_a_lost_hello_request_is_said_again_when_the_board_speaks_as_only_such_a_board_does() -> None:
    rig, fake = ready()
    rig.start()
    rig.boards["b1"].output(rig.now)  # the one HELLO_REQUEST is lost
    assert rig.boards["b1"].status().boot is None
    fake.produce()
    rig.until(lambda: rig.boards["b1"].status().boot == 1)
    rig.until(lambda: fake.idle)
    assert rig.readings("b1") == [(1, 1)]


def test_a_request_under_way_when_the_port_closed_is_not_sent_as_a_request_before_the_hello() -> None:
    rig, fake = ready()
    send(rig, command(1))
    rig.until(lambda: len(answers(rig)) == 1)
    told = send(rig, command(2))
    assert channels(rig) == [5]
    replug(rig)
    rig.boards["b1"].output(rig.now)
    rig.now += 3
    rig.boards["b1"].tick(rig.now)
    assert 5 not in channels(rig)
    rig.boards["b1"].receive(build_frame(encode_link(Hello(16, 512, 1, "b1"))), rig.now)
    rig.until(lambda: len(answers(rig)) == 2, 1)
    rig.until(lambda: told.ended == {2: "taken"})
    assert len(fake.commands) == 2


@pytest.mark.parametrize("clean", [True, False])
def test_a_command_that_a_reset_board_had_not_acknowledged_comes_to_it_again_and_is_answered(clean: bool) -> None:
    rig, fake = ready(FakeBoard("b1", clean=clean))
    send(rig, command(1))
    rig.until(lambda: len(answers(rig)) == 1)
    told = send(rig, command(2))
    assert channels(rig) == [5]  # lost with the reset
    fake.restart(rig.now)
    rig.until(lambda: bool(told.ended))
    assert told.ended == {2: "congested" if clean else "taken"}, "a clean session's origin keeps it"
    if clean:
        rig.until(lambda: fake.ready)
        send(rig, command(2))
    rig.until(lambda: len(answers(rig)) == 2)
    assert answers(rig)[1].properties == Properties(correlation_data=b"c2")
    assert rig.boards["b1"]._requests.lost == 0


def test_a_request_that_a_board_acknowledged_and_forgot_by_a_reset_is_counted_at_once() -> None:
    rig, fake = ready(FakeBoard("b1", answer=lambda topic, payload: None))
    told = send(rig, command(1))
    rig.until(lambda: told.ended == {1: "taken"})
    fake.restart(rig.now)
    rig.until(lambda: fake.ready)
    assert rig.metrics.snapshot()['requests_lost{board="b1"}'] == 1
    rig.run(70)
    assert rig.metrics.snapshot()['requests_expired{board="b1"}'] == 0
    assert len(fake.commands) == 1, "an acknowledged command is not done twice"


def test_status_after_a_reopening_tells_what_the_last_hello_told_as_a_whole() -> None:
    rig, _ = ready()
    rig.run(11)
    before = rig.boards["b1"].status()
    assert (before.boot, before.firmware, before.reset_reason) == (1, "fake-1.0", "power_on")
    rig.boards["b1"].closed("unplugged")
    closed = rig.boards["b1"].status()
    known = (before.boot, before.firmware, before.reset_reason, before.counters, before.client_id)
    assert (closed.boot, closed.firmware, closed.reset_reason, closed.counters, closed.client_id) == known
    assert (closed.port_state, closed.connected, closed.client_state) == ("closed", False, "active")
    rig.boards["b1"].opened(rig.now)
    rig.boards["b1"].receive(build_frame(encode_link(Hello(4, 512, 2, "b1", "fw-9", 4))), rig.now)
    after = rig.boards["b1"].status()
    assert (after.boot, after.firmware, after.reset_reason, after.counters) == (2, "fw-9", "watchdog", {})
    assert (after.uptime_ms, after.connected) == (None, True)


def test_statistics_of_a_boot_that_said_no_hello_are_not_mixed_with_what_another_boot_said() -> None:
    rig = Rig("b1")
    client = SnClient(rig, "b1")
    stats = build_frame(encode_link(Stats(7, 5, 4, ((1, 1),))))
    rig.boards["b1"].receive(stats, rig.now)
    assert rig.boards["b1"].status().boot is None
    assert rig.rejected("b1", "link_before_hello") == 1
    rig.boards["b1"].receive(build_frame(encode_link(Hello(4, 512, 6, "b1", "fw-1", 1))), rig.now)
    client.take()
    client.other.clear()
    rig.now += 2
    rig.boards["b1"].receive(stats, rig.now)
    rig.boards["b1"].tick(rig.now)
    status = rig.boards["b1"].status()
    assert (status.boot, status.firmware, status.counters) == (6, "fw-1", {})
    client.take()
    assert [decode_link(one) for one in client.other] == [HelloRequest()], "its hello was lost: it is asked again"
