"""One session at a time, on a perfect line, packet by packet."""

from collections.abc import Callable

import pytest

from edge.boards import packets as sn
from edge.boards.client import SUBSCRIPTIONS_MAX, WILL_BYTES_MAX
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message, Outcome, Properties
from tests.boards.rig import Rig
from tests.boards.sn_client import SnClient, Told

SETTINGS = MqttSnSettings(retry_s=10, retries=3, sleeping_messages_max=4, queue_messages_max=6, topics_max=20)


def make(settle: Callable[[Message], Outcome | None] = lambda message: Outcome.TAKEN) -> tuple[Rig, SnClient]:
    boards = [BoardSettings(name="b1", port="/dev/b1", predefined={"7": "pre/seven"}, clients=("node-*",))]
    rig = Rig(boards=boards, settings=SETTINGS, settle=settle)
    client = SnClient(rig, "b1")
    client.take()
    return rig, client


def send(rig: Rig, *messages: Message, to: str = "boards") -> Told:
    told = Told()
    rig.gateway.target(to).send(messages, told)
    return told


def test_connect_register_publish_is_routed_under_the_registered_topic() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.register("dt/b1/temp")
    assert client.say(sn.Publish(topic_id, b"1", 5, 1)) == [sn.PubAck(topic_id, 5)]
    [taken] = rig.taken
    assert (taken.source, taken.sender) == ("board:b1", "b1")
    assert (taken.message.topic, taken.message.payload, taken.message.qos) == ("dt/b1/temp", b"1", 1)


def test_the_same_topic_is_registered_under_the_same_id() -> None:
    _, client = make()
    client.connect("b1")
    assert client.register("a/b") == client.register("a/b") != client.register("a/c")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.TAKEN, sn.ACCEPTED),
        (Outcome.CONGESTED, sn.CONGESTION),
        (Outcome.REFUSED, sn.NOT_SUPPORTED),
    ],
)
def test_a_publish_is_answered_with_what_became_of_it(outcome: Outcome, code: int) -> None:
    rig, client = make(lambda message: None)
    client.connect("b1")
    topic_id = client.register("t/x")
    assert client.say(sn.Publish(topic_id, b"1", 5, 1)) == []
    assert client.say(sn.Publish(topic_id, b"1", 5, 1, dup=True)) == [], "a repeat under way is not answered"
    assert len(rig.waiting) == 1
    rig.settle_waiting(outcome)
    assert client.take() == [sn.PubAck(topic_id, 5, code)]


def test_a_repeat_of_a_settled_publish_is_acknowledged_and_not_routed_again() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.register("t/x")
    client.say(sn.Publish(topic_id, b"1", 5, 1))
    assert client.say(sn.Publish(topic_id, b"1", 5, 1, dup=True)) == [sn.PubAck(topic_id, 5)]
    assert len(rig.taken) == 1
    assert client.say(sn.Publish(topic_id, b"2", 5, 1)) == [sn.PubAck(topic_id, 5)]
    assert len(rig.taken) == 2, "the same id for another message is no repeat"


def test_a_plain_client_has_one_publish_under_way() -> None:
    rig, client = make(lambda message: None)
    client.connect("b1")
    topic_id = client.register("t/x")
    client.say(sn.Publish(topic_id, b"1", 5, 1))
    assert client.say(sn.Publish(topic_id, b"2", 6, 1)) == [sn.PubAck(topic_id, 6, sn.CONGESTION)]
    assert len(rig.waiting) == 1


def test_qos_2_from_the_client_is_routed_once_whatever_is_repeated() -> None:
    rig, client = make(lambda message: None)
    client.connect("b1")
    topic_id = client.register("t/x")
    publish = sn.Publish(topic_id, b"1", 9, 2)
    assert client.say(publish) == []
    rig.settle_waiting()
    assert client.take() == [sn.PubRec(9)]
    assert client.say(publish) == [sn.PubRec(9)]
    assert client.say(sn.PubRel(9)) == [sn.PubComp(9)]
    assert client.say(sn.PubRel(9)) == [sn.PubComp(9)]
    assert [one.message.qos for one in rig.taken] == [2]
    assert client.say(publish) == []
    assert len(rig.taken) == 2, "after PUBCOMP the id names a new message"


def test_predefined_and_short_topics_need_no_register() -> None:
    rig, client = make()
    client.connect("b1")
    client.say(sn.Publish(7, b"p", 1, 1, topic_type=sn.PREDEFINED))
    client.say(sn.Publish(int.from_bytes(b"ab", "big"), b"s", 2, 1, topic_type=sn.SHORT))
    assert [one.message.topic for one in rig.taken] == ["pre/seven", "ab"]


def test_qos_minus_1_needs_no_connection_but_a_known_topic() -> None:
    rig, client = make()
    assert client.say(sn.Publish(7, b"p", 0, -1, topic_type=sn.PREDEFINED)) == []
    assert client.say(sn.Publish(8, b"p", 0, -1, topic_type=sn.PREDEFINED)) == []
    assert [(one.sender, one.message.topic, one.message.qos) for one in rig.taken] == [("b1", "pre/seven", 0)]
    assert rig.rejected("b1", "topic_id_unknown") == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_unknown_topic_id_is_answered_with_invalid_topic_id(qos: int) -> None:
    rig, client = make()
    client.connect("b1")
    assert client.say(sn.Publish(99, b"1", 4, qos)) == [sn.PubAck(99, 4, sn.INVALID_TOPIC_ID)]
    assert rig.rejected("b1", "topic_id_unknown") == 1
    assert not rig.taken


def test_one_who_is_not_connected_is_told_so_but_not_in_a_flood() -> None:
    rig, client = make()
    assert client.say(*[sn.Publish(1, b"1", 4, 1)] * 50) == [sn.Disconnect()]
    assert rig.rejected("b1", "not_connected") == 50
    client.after(0.6)
    assert client.say(sn.PingReq()) == [sn.Disconnect()]


def test_the_will_is_asked_for_and_published_when_the_client_is_lost() -> None:
    rig, client = make()
    assert client.say(sn.Connect("b1", 10, will=True, clean_session=True)) == [sn.WillTopicReq()]
    assert client.say(sn.WillTopic("will/b1", 1, retain=True)) == [sn.WillMsgReq()]
    assert client.say(sn.WillMsg(b"gone")) == [sn.ConnAck()]
    client.after(14)
    assert not rig.taken
    client.after(2)
    [taken] = rig.taken
    assert (taken.message.topic, taken.message.payload, taken.message.qos, taken.message.retain) == (
        "will/b1",
        b"gone",
        1,
        True,
    )
    assert client.say(sn.PingReq()) == [sn.Disconnect()]


def test_a_congested_will_is_offered_again() -> None:
    outcomes = iter([Outcome.CONGESTED, Outcome.CONGESTED, Outcome.TAKEN])
    rig, client = make(lambda message: next(outcomes))
    client.say(sn.Connect("b1", 10, will=True))
    client.say(sn.WillTopic("will/b1", 1))
    client.say(sn.WillMsg(b"gone"))
    client.after(30)
    assert [one.message.payload for one in rig.taken] == [b"gone"]


def test_the_will_is_updated_and_deleted() -> None:
    rig, client = make()
    client.say(sn.Connect("b1", 10, will=True))
    client.say(sn.WillTopic("will/b1"))
    client.say(sn.WillMsg(b"gone"))
    assert client.say(sn.WillTopicUpd("will/other", 1)) == [sn.WillTopicResp()]
    assert client.say(sn.WillMsgUpd(b"really gone")) == [sn.WillMsgResp()]
    client.after(16)
    assert [(one.message.topic, one.message.payload) for one in rig.taken] == [("will/other", b"really gone")]
    client.connect("b1", clean=False, keep_alive_s=10)
    assert client.say(sn.WillTopicUpd("")) == [sn.WillTopicResp()]
    assert client.say(sn.WillMsgUpd(b"x")) == [sn.WillMsgResp(sn.NOT_SUPPORTED)]
    client.after(16)
    assert len(rig.taken) == 1


def test_an_orderly_disconnect_publishes_no_will() -> None:
    rig, client = make()
    client.say(sn.Connect("b1", 10, will=True))
    client.say(sn.WillTopic("will/b1"))
    client.say(sn.WillMsg(b"gone"))
    assert client.say(sn.Disconnect()) == [sn.Disconnect()]
    client.after(60)
    assert not rig.taken


def test_an_empty_will_topic_ends_the_handshake_without_a_will() -> None:
    _, client = make()
    client.say(sn.Connect("b1", 10, will=True))
    assert client.say(sn.WillTopic("")) == [sn.ConnAck()]


def test_a_handshake_that_is_not_finished_ends() -> None:
    _, client = make()
    client.say(sn.Connect("b1", 10, will=True))
    client.after(40)
    assert client.say(sn.WillTopic("will/b1")) == [sn.Disconnect()]


def test_a_will_that_is_too_large_is_refused() -> None:
    boards = [BoardSettings(name="b1", port="/dev/b1", content_bytes_max=8192)]
    rig = Rig(boards=boards)
    client = SnClient(rig, "b1")
    client._reader = client._reader.__class__(8192)
    client.say(sn.Connect("b1", 10, will=True))
    client.say(sn.WillTopic("will/b1"))
    assert client.say(sn.WillMsg(b"x" * (WILL_BYTES_MAX + 1))) == [sn.ConnAck(sn.NOT_SUPPORTED)]
    assert rig.rejected("b1", "will_too_large") == 1


@pytest.mark.parametrize(("keep_alive_s", "alive_s", "lost_s"), [(10, 14.5, 16), (100, 109, 112)])
def test_keep_alive_has_the_standards_tolerance(keep_alive_s: int, alive_s: float, lost_s: float) -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=keep_alive_s)
    client.after(alive_s)
    assert client.say(sn.PingReq()) == [sn.PingResp()]
    client.after(lost_s)
    assert client.say(sn.PingReq()) == [sn.Disconnect()]
    assert rig.count("clients_lost", board="b1") == 1


def test_a_message_for_a_client_is_registered_first_and_taken_when_acknowledged() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("cmd/b1/#")
    told = send(rig, Message("cmd/b1/ping", b"1", 1, receipt=11), Message("cmd/b1/ping", b"2", 1, receipt=12))
    [register] = client.take()
    assert isinstance(register, sn.Register)
    assert register.topic == "cmd/b1/ping"
    [first] = client.say(sn.RegAck(register.topic_id, register.message_id))
    assert isinstance(first, sn.Publish)
    assert (first.payload, first.qos, told.ended) == (b"1", 1, {})
    [second] = client.say(sn.PubAck(register.topic_id, first.message_id))
    assert isinstance(second, sn.Publish)
    assert told.ended == {11: "taken"}
    client.say(sn.PubAck(register.topic_id, second.message_id))
    assert told.ended == {11: "taken", 12: "taken"}


def test_an_exact_subscription_brings_its_topic_id_with_the_suback() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("cmd/b1/ping")
    assert topic_id
    send(rig, Message("cmd/b1/ping", b"1", 0))
    assert client.take() == [sn.Publish(topic_id, b"1")]


def test_subscriptions_by_predefined_and_short_topic() -> None:
    rig, client = make()
    client.connect("b1")
    [answer] = client.say(sn.Subscribe(3, topic_id=7, topic_type=sn.PREDEFINED, qos=1))
    assert answer == sn.SubAck(7, 3, sn.ACCEPTED, 1)
    [answer] = client.say(sn.Subscribe(4, topic_id=9, topic_type=sn.PREDEFINED))
    assert answer == sn.SubAck(0, 4, sn.INVALID_TOPIC_ID)
    [answer] = client.say(sn.Subscribe(5, topic="xy", topic_type=sn.SHORT))
    assert answer == sn.SubAck(0, 5)
    send(rig, Message("pre/seven", b"p", 0), Message("xy", b"s", 1, receipt=1))
    assert client.take() == [
        sn.Publish(7, b"p", topic_type=sn.PREDEFINED),
        sn.Publish(int.from_bytes(b"xy", "big"), b"s", topic_type=sn.SHORT),
    ]


def test_unsubscribe_ends_it() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("a/+")
    assert client.say(sn.Unsubscribe(4, "a/+")) == [sn.UnsubAck(4)]
    assert client.say(sn.Unsubscribe(5, "never/there")) == [sn.UnsubAck(5)]
    told = send(rig, Message("a/b", b"1", 1, receipt=1))
    assert told.ended == {1: "taken"}
    assert rig.count("no_subscriber") == 1
    assert client.take() == []


def test_overlapping_subscriptions_bring_one_message_at_the_higher_qos() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b", 1)
    client.subscribe("a/#", 0)
    send(rig, Message("a/b", b"1", 2, receipt=1))
    assert client.take() == [sn.Publish(topic_id, b"1", 1, 1)]


def test_qos_2_to_the_client_goes_through_all_four_steps() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b", 2)
    told = send(rig, Message("a/b", b"1", 2, receipt=1))
    [publish] = client.take()
    assert publish == sn.Publish(topic_id, b"1", 1, 2)
    assert client.say(sn.PubRec(1)) == [sn.PubRel(1)]
    assert client.say(sn.PubRec(1)) == [sn.PubRel(1)]
    assert client.after(10.5) == [sn.PubRel(1)]
    assert told.ended == {}
    client.say(sn.PubComp(1))
    assert told.ended == {1: "taken"}


def test_what_is_not_acknowledged_is_sent_again_and_then_the_client_is_lost() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    topic_id = client.subscribe("a/b")
    told = send(rig, Message("a/b", b"1", 1, receipt=1))
    assert client.take() == [sn.Publish(topic_id, b"1", 1, 1)]
    assert client.after(35) == [sn.Publish(topic_id, b"1", 1, 1, dup=True)] * 3
    assert told.ended == {}
    client.after(10)
    assert told.ended == {1: "congested"}, "whoever sent it keeps it"
    assert rig.count("clients_lost", board="b1") == 1


def test_a_register_is_repeated_without_dup() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    client.subscribe("a/+")
    send(rig, Message("a/b", b"1"))
    [register] = client.take()
    assert client.after(10.5) == [register]


def test_a_client_that_forgot_a_topic_id_is_told_again() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    told = send(rig, Message("a/b", b"1", 1, receipt=1))
    client.take()
    [register] = client.say(sn.PubAck(topic_id, 1, sn.INVALID_TOPIC_ID))
    assert isinstance(register, sn.Register)
    [publish] = client.say(sn.RegAck(topic_id, register.message_id))
    assert isinstance(publish, sn.Publish)
    client.say(sn.PubAck(topic_id, publish.message_id, sn.INVALID_TOPIC_ID))
    assert told.ended == {1: "refused"}


def test_a_congested_client_is_asked_again_later() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    topic_id = client.subscribe("a/b")
    told = send(rig, Message("a/b", b"1", 1, receipt=1))
    client.take()
    for _ in range(10):
        client.say(sn.PubAck(topic_id, 1, sn.CONGESTION))
        assert client.after(10.5) == [sn.Publish(topic_id, b"1", 1, 1, dup=True)]
    client.say(sn.PubAck(topic_id, 1))
    assert told.ended == {1: "taken"}


def test_a_full_queue_is_congestion_for_qos_1_and_a_counted_loss_for_qos_0() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("a/b")
    told = send(rig, *(Message("a/b", b"1", 1, receipt=n) for n in range(1, 10)), Message("a/b", b"0"))
    assert told.ended == {8: "congested", 9: "congested"}
    assert rig.count("messages_dropped", reason="queue_full") == 1


def test_a_message_too_large_for_the_client_is_refused() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("a/b")
    told = send(rig, Message("a/b", b"x" * 300, 1, receipt=1), Message("a/b", b"x", 1, receipt=2))
    assert told.ended == {1: "refused"}
    assert rig.count("messages_dropped", reason="too_large") == 1
    assert len(client.take()) == 1


def test_a_message_that_expired_while_it_waited_is_not_sent() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    topic_id = client.subscribe("a/b")
    told = send(
        rig, Message("a/b", b"1", 1, receipt=1), Message("a/b", b"2", 1, receipt=2, properties=Properties(expiry_s=5))
    )
    client.take()
    client.after(6)
    assert client.say(sn.PubAck(topic_id, 1)) == []
    assert told.ended == {1: "taken", 2: "taken"}
    assert rig.count("messages_dropped", reason="expired") == 1


def test_a_sleeping_client_gets_what_waited_when_it_asks() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    assert client.say(sn.Disconnect(60)) == [sn.Disconnect()]
    told = send(rig, *(Message("a/b", b"%d" % n, 1, receipt=n) for n in range(1, 7)))
    assert set(told.ended.values()) == {"taken"}, "one that sleeps holds up nobody"
    assert rig.count("messages_dropped", reason="sleeper_full") == 2
    assert client.after(50) == []
    heard = client.say(sn.PingReq("b1"))
    for n in range(1, 5):
        [publish] = heard
        assert isinstance(publish, sn.Publish)
        assert (publish.payload, publish.message_id) == (b"%d" % n, n)
        heard = client.say(sn.PubAck(topic_id, n))
    assert heard == [sn.PingResp()]
    assert client.say(sn.PingReq("b1")) == [sn.PingResp()]


def test_what_arrives_while_a_sleeper_drains_waits_for_its_next_ping() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    client.say(sn.Disconnect(60))
    send(rig, Message("a/b", b"1", 1, receipt=1))
    client.say(sn.PingReq("b1"))
    send(rig, Message("a/b", b"2", 1, receipt=2))
    assert client.say(sn.PubAck(topic_id, 1)) == [sn.PingResp()]
    [publish] = client.say(sn.PingReq("b1"))
    assert isinstance(publish, sn.Publish)
    assert publish.payload == b"2"


def test_a_sleeper_that_does_not_ask_in_its_time_is_lost_with_its_will() -> None:
    rig, client = make()
    client.say(sn.Connect("b1", 10, will=True))
    client.say(sn.WillTopic("will/b1"))
    client.say(sn.WillMsg(b"gone"))
    client.say(sn.Disconnect(100))
    client.after(109)
    assert client.say(sn.PingReq("b1")) == [sn.PingResp()]
    client.after(109)
    assert not rig.taken
    client.after(2)
    assert [one.message.payload for one in rig.taken] == [b"gone"]


def test_a_sleeper_wakes_by_connect_whose_flags_are_ignored() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    client.say(sn.Disconnect(60))
    send(rig, Message("a/b", b"1", 1, receipt=1))
    assert client.say(sn.Connect("b1", 10, will=True, clean_session=True)) == [
        sn.ConnAck(),
        sn.Publish(topic_id, b"1", 1, 1),
    ]


def test_a_sleeper_that_falls_asleep_while_draining_loses_nothing() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    client.say(sn.Disconnect(600))
    send(rig, Message("a/b", b"1", 1, receipt=1))
    client.say(sn.PingReq("b1"))
    client.after(50)
    assert client.say(sn.PingReq("b1")) == [sn.Publish(topic_id, b"1", 1, 1, dup=True)]
    assert client.say(sn.PubAck(topic_id, 1)) == [sn.PingResp()]


def test_a_session_that_is_not_clean_survives_a_disconnect_with_its_messages() -> None:
    rig, client = make()
    client.connect("b1", clean=False)
    topic_id = client.subscribe("a/b")
    client.say(sn.Disconnect())
    told = send(rig, *(Message("a/b", b"%d" % n, 1, receipt=n) for n in range(1, 7)), Message("a/b", b"0"))
    assert set(told.ended.values()) == {"taken"}, "one that is away holds up nobody"
    assert rig.count("messages_dropped", reason="session_full") == 2
    heard = client.say(sn.Connect("b1", 30))
    assert heard == [sn.ConnAck(), sn.Publish(topic_id, b"1", 1, 1)]


def test_a_clean_session_starts_with_nothing() -> None:
    rig, client = make()
    client.connect("b1", clean=False)
    client.subscribe("a/b")
    client.say(sn.Disconnect())
    send(rig, Message("a/b", b"1", 1, receipt=1))
    client.connect("b1", clean=True)
    client.after(11)
    assert client.take() == []
    assert send(rig, Message("a/b", b"1", 1, receipt=1)).ended == {1: "taken"}
    assert rig.count("no_subscriber") == 1


def test_a_reconnect_replaces_the_session_and_gives_back_what_was_under_way() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("a/b")
    told = send(rig, Message("a/b", b"1", 1, receipt=1))
    client.connect("b1")
    assert told.ended == {1: "congested"}


def test_topic_ids_run_out_with_congestion() -> None:
    rig, client = make()
    client.connect("b1")
    answers = [client.say(sn.Register(0, n, f"t/{n}"))[0] for n in range(1, 25)]
    assert [one.return_code for one in answers if isinstance(one, sn.RegAck)] == [0] * 20 + [sn.CONGESTION] * 4
    assert rig.rejected("b1", "topic_ids_exhausted") == 4
    client.subscribe("other/#")
    told = send(rig, Message("other/1", b"1", 1, receipt=1))
    assert told.ended == {1: "refused"}
    assert rig.count("messages_dropped", reason="topic_ids_exhausted") == 1


def test_long_topics_fill_the_table_by_their_bytes() -> None:
    boards = [BoardSettings(name="b1", port="/dev/b1", content_bytes_max=65_535)]
    rig = Rig(boards=boards)
    client = SnClient(rig, "b1")
    client.connect("b1")
    codes = []
    for n in range(4):
        [answer] = client.say(sn.Register(0, n, f"{n}" + "x" * 65_000))
        assert isinstance(answer, sn.RegAck)
        codes.append(answer.return_code)
    assert codes == [sn.ACCEPTED, sn.ACCEPTED, sn.CONGESTION, sn.CONGESTION]


def test_subscriptions_are_bounded() -> None:
    rig, client = make()
    client.connect("b1")
    for n in range(SUBSCRIPTIONS_MAX):
        client.subscribe(f"{n}/+")
    assert client.say(sn.Subscribe(9, "one/more/+")) == [sn.SubAck(0, 9, sn.CONGESTION)]
    assert rig.rejected("b1", "subscriptions_exhausted") == 1


@pytest.mark.parametrize(
    ("raw", "reason", "answer"),
    [
        (b"\x0a\x0a\0\0\0\x01a/+b", "topic_wildcard", sn.RegAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x0a\x0a\0\0\0\x01a/#b", "topic_wildcard", sn.RegAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x09\x0a\0\0\0\x01a\0b", "topic_nul", sn.RegAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x09\x0a\0\0\0\x01a\xffb", "topic_utf8", sn.RegAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x0a\x12\x20\0\x01a/#/b", "filter_wildcard", sn.SubAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x08\x12\x20\0\x01a\0b", "topic_nul", sn.SubAck(0, 1, sn.NOT_SUPPORTED)),
        (b"\x03\x99\x00", "unknown_type", None),
        (b"\x04\x0c\x00\x00", "too_short", None),
        (b"\x09\x0c\x00\x00", "bad_length", None),
    ],
)
def test_bad_packets_are_counted_with_a_reason_and_answered_where_one_waits(
    raw: bytes, reason: str, answer: sn.Packet | None
) -> None:
    rig, client = make()
    client.connect("b1")
    assert client.say_raw(raw) == ([answer] if answer is not None else [])
    assert rig.rejected("b1", reason) == 1
    assert client.say(sn.PingReq()) == [sn.PingResp()], "the session goes on"


@pytest.mark.parametrize(
    "packet",
    [
        sn.ConnAck(),
        sn.WillTopicReq(),
        sn.WillMsgReq(),
        sn.SubAck(1, 1),
        sn.UnsubAck(1),
        sn.PingResp(),
        sn.WillTopicResp(),
        sn.WillMsgResp(),
        sn.WillTopic("a"),
        sn.WillMsg(b"a"),
    ],
)
def test_what_only_a_gateway_says_or_at_another_time_is_counted(packet: sn.Packet) -> None:
    rig, client = make()
    client.connect("b1")
    assert client.say(packet) == []
    assert rig.rejected("b1", "unexpected") == 1


def test_answers_to_nothing_are_counted() -> None:
    rig, client = make()
    client.connect("b1")
    client.say(sn.PubAck(1, 77), sn.PubComp(77), sn.RegAck(1, 77))
    assert client.say(sn.PubRec(77)) == [sn.PubRel(77)], "the client can finish"
    assert rig.rejected("b1", "message_id_unknown") == 4
