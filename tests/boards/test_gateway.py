"""Several clients and links: who may be who, who hears what, and what one must not do to another."""

import logging
from collections.abc import Callable, Sequence

import pytest

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.board import CLIENTS_MAX
from edge.boards.gateway import LOG_LINES_A_MINUTE_MAX
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message, Origin, Outcome, Reading
from tests.boards.rig import Rig
from tests.boards.sn_client import SnClient, Told

BOARDS = [
    BoardSettings(name="b1", port="/dev/b1", clients=("node-*", "extra")),
    BoardSettings(name="b2", port="/dev/b2", clients=("*",)),
]
SETTINGS = MqttSnSettings(retry_s=10, retries=3, retained_max=3, retained_bytes_max=200)


def make(settle: Callable[[Message], Outcome | None] = lambda message: Outcome.TAKEN) -> tuple[Rig, SnClient, SnClient]:
    rig = Rig(boards=BOARDS, settings=SETTINGS, settle=settle)
    one, two = SnClient(rig, "b1"), SnClient(rig, "b2")
    one.take()
    two.take()
    return rig, one, two


def send(rig: Rig, to: str, *messages: Message) -> Told:
    told = Told()
    rig.gateway.target(to).send(messages, told)
    return told


@pytest.mark.parametrize("client_id", ["b2", "stranger", "nod"])
def test_a_client_id_that_is_not_the_boards_is_refused(client_id: str) -> None:
    rig, one, _ = make()
    assert one.say(sn.Connect(client_id, 30)) == [sn.ConnAck(sn.NOT_SUPPORTED)]
    reason = "client_id_foreign" if client_id == "b2" else "client_id_not_allowed"
    assert rig.rejected("b1", reason) == 1


@pytest.mark.parametrize("client_id", ["b1", "extra"])
def test_a_wildcard_of_allowed_clients_does_not_reach_another_boards_names(client_id: str) -> None:
    rig, _, two = make()
    assert two.say(sn.Connect(client_id, 30)) == [sn.ConnAck(sn.NOT_SUPPORTED)]
    assert rig.rejected("b2", "client_id_foreign") == 1


@pytest.mark.parametrize("client_id", ["a/b", "a+", "#", "x" * 24, "ä", "a b"])
def test_a_client_id_that_would_not_fit_a_topic_level_is_refused(client_id: str) -> None:
    rig, _, two = make()
    assert two.say(sn.Connect(client_id, 30)) == [sn.ConnAck(sn.NOT_SUPPORTED)]
    assert rig.rejected("b2", "client_id_invalid") == 1


def test_a_client_connected_on_one_link_is_not_taken_over_from_another() -> None:
    rig, one, two = make()
    one.connect("node-1", keep_alive_s=10)
    assert two.say(sn.Connect("node-1", 30)) == [sn.ConnAck(sn.NOT_SUPPORTED)]
    assert rig.rejected("b2", "client_id_in_use") == 1
    one.after(20)
    two.connect("node-1")


def test_another_client_on_the_same_line_replaces_the_former_with_its_will() -> None:
    rig, one, _ = make()
    one.say(sn.Connect("b1", 30, will=True))
    one.say(sn.WillTopic("will/b1"))
    one.say(sn.WillMsg(b"gone"))
    one.connect("extra")
    one.after(1)
    assert [(taken.sender, taken.message.topic) for taken in rig.taken] == [("b1", "will/b1")]
    topic_id = one.register("a")
    one.say(sn.Publish(topic_id, b""))
    assert rig.taken[-1].sender == "extra"


def test_several_clients_live_behind_one_port_by_forwarder_encapsulation() -> None:
    rig, _, _ = make()
    nodes = [SnClient(rig, "b1", node=bytes((n,)) * (n + 1)) for n in range(3)]
    for n, node in enumerate(nodes):
        node.connect(f"node-{n}")
        topic_id = node.register(f"t/{n}")
        assert node.say(sn.Publish(topic_id, b"%d" % n, 1, 1)) == [sn.PubAck(topic_id, 1)]
        node.subscribe(f"c/{n}")
    assert [(taken.sender, taken.message.topic) for taken in rig.taken] == [(f"node-{n}", f"t/{n}") for n in range(3)]
    send(rig, "boards", Message("c/1", b"x"))
    heard = [rig.boards["b1"].output(rig.now)]
    for node in nodes:
        for content in node._reader.feed(heard[0]):
            node._hear(content)
    assert [len(node.heard) for node in nodes] == [0, 1, 0]


def test_what_a_forwarder_adds_counts_towards_the_boards_limit() -> None:
    rig, _, _ = make()
    node = SnClient(rig, "b1", node=b"0123456789")
    node.connect("node-1")
    node.subscribe("ab")
    told = send(rig, "boards", *(Message("ab", b"x" * size, 1, receipt=size) for size in (235, 236)))
    [publish] = node.take()
    assert isinstance(publish, sn.Publish)
    assert len(mqttsn.encode(sn.Forwarded(node.node, mqttsn.encode(publish)))) + 1 == 256
    node.say(sn.PubAck(publish.topic_id, publish.message_id))
    assert told.ended == {235: "taken", 236: "refused"}


def test_nested_encapsulation_is_rejected() -> None:
    rig, one, _ = make()
    inner = mqttsn.encode(sn.Forwarded(b"2", mqttsn.encode(sn.PingReq())))
    assert one.say(sn.Forwarded(b"1", inner)) == []
    assert sum(rig.boards["b1"].status().rejected.values()) == 1
    one.connect("b1")


def test_clients_behind_one_port_are_bounded_and_one_that_is_away_gives_way() -> None:
    rig, _, _ = make()
    for n in range(CLIENTS_MAX):
        SnClient(rig, "b1", node=b"%d" % n).connect(f"node-{n}", clean=False)
    late = SnClient(rig, "b1", node=b"late")
    assert late.say(sn.Connect("node-late", 30)) == [sn.ConnAck(sn.CONGESTION)]
    assert rig.rejected("b1", "clients_exhausted") == 1
    SnClient(rig, "b1", node=b"5").say(sn.Disconnect())
    late.connect("node-late")
    assert rig.count("sessions_evicted", board="b1") == 1
    assert len(rig.gateway.clients()) == CLIENTS_MAX


def test_messages_reach_the_boards_that_a_target_names() -> None:
    rig, one, two = make()
    one.connect("b1")
    two.connect("b2")
    topic_id = one.subscribe("a/b")
    assert two.subscribe("a/b") == topic_id
    send(rig, "boards", Message("a/b", b"all"))
    assert [len(one.take()), len(two.take())] == [1, 1]
    send(rig, "board:b2", Message("a/b", b"two"))
    assert [len(one.take()), len(two.take())] == [0, 1]
    send(rig, "udp", Message("a/b", b"none"))
    assert [len(one.take()), len(two.take())] == [0, 0]
    assert rig.count("no_subscriber") == 1


def test_a_message_for_two_is_taken_when_both_have_it() -> None:
    rig, one, two = make()
    one.connect("b1")
    two.connect("b2")
    topic_id = one.subscribe("a/b")
    two.subscribe("a/b")
    told = send(rig, "boards", Message("a/b", b"1", 1, receipt=1))
    one.take()
    one.say(sn.PubAck(topic_id, 1))
    assert told.ended == {}
    two.take()
    two.say(sn.PubAck(topic_id, 1))
    assert told.ended == {1: "taken"}


def test_one_full_queue_does_not_keep_a_message_from_the_other() -> None:
    rig, one, two = make()
    one.connect("b1", keep_alive_s=0)
    two.connect("b2", keep_alive_s=0)
    topic_id = one.subscribe("a/b")
    two.subscribe("a/b")
    total = SETTINGS.queue_messages_max + 20
    for n in range(1, total + 1):
        send(rig, "boards", Message("a/b", b"1", 1, receipt=n))
        one.take()
        one.say(sn.PubAck(topic_id, n))
    told = send(rig, "boards", Message("a/b", b"last", 1, receipt=1))
    [publish] = one.take()
    assert isinstance(publish, sn.Publish)
    one.say(sn.PubAck(topic_id, publish.message_id))
    assert told.ended == {1: "taken"}
    assert rig.count("messages_dropped", reason="queue_full") == 20


def test_acknowledgements_of_one_read_are_told_to_the_origin_in_one_call() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    fake._topic_ids[9] = "cmd/b1/x"
    told = send(rig, "boards", *(Message("cmd/b1/x", b"", 1, receipt=n) for n in range(1, 17)))
    rig.run(1)
    assert set(told.ended.values()) == {"taken"}
    assert len(told.ended) == 16
    assert told.calls < 5


def test_a_subscriber_gets_what_is_retained_for_its_target_only() -> None:
    rig, one, two = make()
    one.connect("b1")
    two.connect("b2")
    send(rig, "boards", Message("s/1", b"all", 1, retain=True, receipt=1))
    send(rig, "board:b2", Message("s/2", b"two", 0, retain=True))
    heard = one.say(sn.Subscribe(2, "s/#", qos=1))
    assert heard[0] == sn.SubAck(0, 2, 0, 1)
    assert isinstance(heard[1], sn.Register)
    heard = one.say(sn.RegAck(heard[1].topic_id, heard[1].message_id))
    assert [(p.payload, p.qos, p.retain) for p in heard if isinstance(p, sn.Publish)] == [(b"all", 1, True)]
    topic_id = two.subscribe("s/2")
    send(rig, "board:b2", Message("s/2", b"live", 0, retain=True))
    assert two.take() == [sn.Publish(topic_id, b"live")], "to who is there already it is no retained message"
    heard = two.say(sn.Subscribe(3, "s/2"))
    assert heard[1] == sn.Publish(topic_id, b"live", retain=True)


def test_an_empty_payload_forgets_and_a_bound_refuses_what_is_new() -> None:
    rig, _, _ = make()
    for n in range(5):
        send(rig, "boards", Message(f"s/{n}", b"x", retain=True))
    assert rig.count("retained_dropped") == 2
    send(rig, "boards", Message("s/0", b"", retain=True), Message("s/9", b"y", retain=True))
    send(rig, "boards", Message("s/1", b"x" * 500, retain=True))
    assert rig.count("retained_dropped") == 3
    assert rig.metrics.snapshot()["retained_messages"] == 2


def test_searchgw_is_answered_with_the_gateways_id_and_opening_advertises_it() -> None:
    rig, one, _ = make()
    assert one.say(sn.SearchGw()) == [sn.GwInfo(1)]
    assert one.say(sn.Advertise(7, 60), sn.GwInfo(7)) == []
    rig.boards["b1"].closed("unplugged")
    rig.boards["b1"].opened(rig.now)
    data = rig.boards["b1"].output(rig.now)
    packets = [mqttsn.decode(content, 1) for content in one._reader.feed(data) if content[0] == 1]
    assert packets == [sn.Advertise(1, 900)]


def test_boards_speak_to_boards_through_the_router() -> None:
    rig, one, two = make()

    def route(source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        rig.gateway.target("boards").send(messages, origin)

    rig.gateway._route = route
    one.connect("b1")
    two.connect("b2")
    topic_id = two.subscribe("x/y")
    assert one.register("x/y") == topic_id
    assert one.say(sn.Publish(topic_id, b"hi", 3, 1)) == []
    assert two.take() == [sn.Publish(topic_id, b"hi", 1, 1)]
    two.say(sn.PubAck(topic_id, 1))
    assert one.take() == [sn.PubAck(topic_id, 3)], "the sender hears when the receiver has it"


def test_a_client_that_leaves_in_the_turn_in_which_it_published_is_still_heard() -> None:
    rig, one, _ = make()
    one.connect("b1")
    topic_id = one.register("a")
    one.say(sn.Publish(topic_id, b"last words"), sn.Disconnect())
    assert [taken.message.payload for taken in rig.taken] == [b"last words"]


def test_the_gateway_lists_its_clients() -> None:
    rig, one, _ = make()
    one.connect("b1")
    one.subscribe("a/#")
    [status] = rig.gateway.clients()
    assert (status.id, status.link, status.state, status.subscriptions) == ("b1", "b1", "active", 1)


def test_a_command_for_a_board_that_is_about_to_come_is_offered_again_but_not_for_ever() -> None:
    rig, one, _ = make()
    command = Message("cmd/b1/ping", b"", 1, receipt=1)
    assert send(rig, "boards", command).ended == {1: "congested"}
    reading = Message("dt/b1", b"", 1, receipt=1, reading=Reading("b1", 1, 1))
    assert send(rig, "boards", reading).ended == {1: "taken"}, "telemetry waits for nobody"
    rig.now += 11
    assert send(rig, "boards", command).ended == {1: "taken"}
    assert rig.count("no_subscriber") == 2
    one.connect("b1", keep_alive_s=10)
    assert send(rig, "board:b1", command).ended == {1: "congested"}
    assert send(rig, "board:b2", command).ended == {1: "taken"}
    one.subscribe("other")
    assert send(rig, "board:b1", command).ended == {1: "taken"}, "it has said what it wants"
    one.after(20)
    assert send(rig, "board:b1", command).ended == {1: "congested"}, "it was lost and may be back"


def test_clients_that_come_and_go_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, one, _ = make()
    for _ in range(100):
        one.connect("b1")
        one.say(sn.Disconnect())
        one.say(sn.Connect("b2", 30))
    events = [record.getMessage() for record in caplog.records]
    assert len(events) == LOG_LINES_A_MINUTE_MAX
    assert events[:3] == ["client_connected", "client_disconnected", "client_refused"]
