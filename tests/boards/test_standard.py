"""Clauses of MQTT-SN 1.2 that a stock client leans on, by messages that were lost, late, or said by a forgetful one."""

import pytest

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.gateway import IDLE_S
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message
from tests.boards.rig import Rig
from tests.boards.sn_client import SnClient, Told

SETTINGS = MqttSnSettings(retry_s=10, retries=3, sleeping_messages_max=4, queue_messages_max=6, topics_max=20)


def make() -> tuple[Rig, SnClient]:
    boards = [BoardSettings(name="b1", port="/dev/b1", predefined={"7": "pre/seven"}, clients=("node-*",))]
    rig = Rig(boards=boards, settings=SETTINGS)
    client = SnClient(rig, "b1")
    client.take()
    return rig, client


def send(rig: Rig, *messages: Message) -> Told:
    told = Told()
    rig.gateway.target("boards").send(messages, told)
    return told


def test_a_connack_lost_at_the_end_of_the_will_handshake_is_said_again() -> None:
    _, client = make()
    client.say(sn.Connect("b1", 30, will=True))
    client.say(sn.WillTopic("w", 1))
    assert client.say(sn.WillMsg(b"gone")) == [sn.ConnAck()]
    assert client.say(sn.WillMsg(b"gone")) == [sn.ConnAck()], "6.13: the client repeats what was not answered"
    assert client.say(sn.WillMsg(b"other")) == []


def test_a_connack_lost_after_an_empty_will_topic_is_said_again() -> None:
    _, client = make()
    client.say(sn.Connect("b1", 30, will=True))
    assert client.say(sn.WillTopic("")) == [sn.ConnAck()]
    assert client.say(sn.WillTopic("")) == [sn.ConnAck()]


def test_each_step_of_the_will_handshake_may_be_repeated() -> None:
    rig, client = make()
    connect = sn.Connect("b1", 10, will=True, clean_session=True)
    assert client.say(connect) == client.say(connect) == [sn.WillTopicReq()]
    assert client.say(sn.WillTopic("w")) == client.say(sn.WillTopic("w")) == [sn.WillMsgReq()]
    assert client.say(sn.WillMsg(b"gone")) == [sn.ConnAck()]
    client.after(20)
    assert [one.message.payload for one in rig.taken] == [b"gone"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_client_that_forgot_a_topic_id_is_registered_again_whatever_the_qos(qos: int) -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b", qos)
    send(rig, Message("a/b", b"1", qos, receipt=1))
    [publish] = client.take()
    assert isinstance(publish, sn.Publish)
    heard = client.say(sn.PubAck(topic_id, publish.message_id, sn.INVALID_TOPIC_ID))
    send(rig, Message("a/b", b"2", qos, receipt=2))
    assert any(isinstance(one, sn.Register) for one in heard + client.take())


@pytest.mark.parametrize("code", [sn.INVALID_TOPIC_ID, sn.NOT_SUPPORTED])
def test_a_register_that_the_client_refuses_refuses_the_message_and_not_the_next(code: int) -> None:
    rig, client = make()
    client.connect("b1")
    assert client.subscribe("a/#") == 0, "5.4.16: a filter has no topic id"
    told = send(rig, Message("a/b", b"1", 1, receipt=1), Message("a/c", b"2", 1, receipt=2))
    [register] = client.take()
    assert isinstance(register, sn.Register)
    [after] = client.say(sn.RegAck(register.topic_id, register.message_id, code))
    assert told.ended == {1: "refused"}
    assert isinstance(after, sn.Register)
    assert (after.topic, after.topic_id != register.topic_id) == ("a/c", True)
    [publish] = client.say(sn.RegAck(after.topic_id, after.message_id))
    assert isinstance(publish, sn.Publish)
    assert publish.payload == b"2"


def test_a_congested_register_is_said_again_after_t_retry() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    client.subscribe("a/+")
    send(rig, Message("a/b", b"1"))
    [register] = client.take()
    assert isinstance(register, sn.Register)
    assert client.say(sn.RegAck(register.topic_id, register.message_id, sn.CONGESTION)) == []
    assert client.after(10.5) == [register]


def test_a_sleepers_repeated_ping_is_not_answered_before_all_has_been_sent() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.subscribe("a/b")
    client.say(sn.Disconnect(60))
    send(rig, Message("a/b", b"1", 1, receipt=1), Message("a/b", b"2", 1, receipt=2))
    client.say(sn.PingReq("b1"))
    assert client.say(sn.PingReq("b1")) == [sn.Publish(topic_id, b"1", 1, 1, dup=True)], "6.14: PINGRESP ends it"
    [second] = client.say(sn.PubAck(topic_id, 1))
    assert isinstance(second, sn.Publish)
    assert client.say(sn.PubAck(topic_id, second.message_id)) == [sn.PingResp()]
    assert client.say(sn.PingReq("b1")) == [sn.PingResp()]


def test_a_sleeper_may_lengthen_its_sleep_or_leave_without_waking() -> None:
    rig, client = make()
    client.say(sn.Connect("b1", 10, will=True, clean_session=True))
    client.say(sn.WillTopic("w"))
    client.say(sn.WillMsg(b"gone"))
    assert client.say(sn.Disconnect(20)) == [sn.Disconnect()]
    assert client.say(sn.Disconnect(100)) == [sn.Disconnect()]
    client.after(100)
    assert not rig.taken
    assert client.say(sn.Disconnect()) == [sn.Disconnect()]
    client.after(200)
    assert not rig.taken
    assert rig.gateway.clients() == ()


def test_a_sleeper_gets_wildcard_messages_with_a_register_and_qos_2_in_four_steps() -> None:
    rig, client = make()
    client.connect("b1")
    client.subscribe("a/#", 2)
    client.say(sn.Disconnect(60))
    send(rig, Message("a/b", b"1", 2, receipt=1), Message("a/c", b"0"))
    [register] = client.say(sn.PingReq("b1"))
    assert isinstance(register, sn.Register)
    heard = client.say(sn.RegAck(register.topic_id, register.message_id))
    assert isinstance(heard[0], sn.Publish)
    assert isinstance(heard[1], sn.Register)
    assert client.say(sn.PubRec(heard[0].message_id)) == [sn.PubRel(heard[0].message_id)]
    [publish] = client.say(sn.RegAck(heard[1].topic_id, heard[1].message_id))
    assert publish == sn.Publish(heard[1].topic_id, b"0")
    assert client.say(sn.PubComp(heard[0].message_id)) == [sn.PingResp()]


def test_qos_2_to_a_client_is_repeated_with_dup_until_pubrec() -> None:
    rig, client = make()
    client.connect("b1", keep_alive_s=0)
    topic_id = client.subscribe("a/b", 2)
    told = send(rig, Message("a/b", b"1", 2, receipt=1))
    assert client.take() == [sn.Publish(topic_id, b"1", 1, 2)]
    assert client.after(10.5) == [sn.Publish(topic_id, b"1", 1, 2, dup=True)]
    assert client.say(sn.PubAck(topic_id, 1)) == [], "PUBACK is no answer to QoS 2"
    assert client.say(sn.PubRec(1)) == [sn.PubRel(1)]
    assert client.say(sn.PubComp(1)) == []
    assert told.ended == {1: "taken"}


def test_qos_0_carries_any_message_id_and_is_never_answered() -> None:
    rig, client = make()
    client.connect("b1")
    topic_id = client.register("a")
    assert client.say(*(sn.Publish(topic_id, b"x", n) for n in (0, 0, 9, 9))) == []
    assert len(rig.taken) == 4


def test_the_long_form_of_the_length_is_taken_for_any_message() -> None:
    rig, client = make()
    client.connect("b1")
    raw = mqttsn.encode(sn.Register(0, 1, "a"))
    [answer] = client.say_raw(b"\x01" + (len(raw) + 2).to_bytes(2, "big") + raw[1:])
    assert isinstance(answer, sn.RegAck)
    raw = mqttsn.encode(sn.Publish(answer.topic_id, b"long", 3, 1))
    [answer] = client.say_raw(b"\x01" + (len(raw) + 2).to_bytes(2, "big") + raw[1:])
    assert answer == sn.PubAck(1, 3)
    assert [one.message.payload for one in rig.taken] == [b"long"]


def test_a_two_octet_filter_with_a_wildcard_is_taken_as_a_short_topic_too() -> None:
    rig, client = make()
    client.connect("b1")
    assert client.say(sn.Subscribe(5, topic="+x", topic_type=sn.SHORT)) == [sn.SubAck(0, 5, sn.NOT_SUPPORTED)]
    [answer] = client.say(sn.Subscribe(6, topic="/#", topic_type=sn.SHORT, qos=1))
    assert answer == sn.SubAck(0, 6, sn.ACCEPTED, 1), "mqtt-sn-sub says every two octets as a short topic"
    send(rig, Message("/a", b"1"))
    [publish] = client.take()
    assert publish == sn.Publish(int.from_bytes(b"/a", "big"), b"1", topic_type=sn.SHORT)
    assert client.say(sn.Unsubscribe(7, topic="/#", topic_type=sn.SHORT)) == [sn.UnsubAck(7)]
    send(rig, Message("/a", b"2"))
    assert client.take() == []


def test_a_silent_client_without_keep_alive_gives_way_when_the_table_is_full_and_says_its_will() -> None:
    rig, _ = make()
    nodes = [SnClient(rig, "b1", node=bytes((n,))) for n in range(1, 66)]
    for n, node in enumerate(nodes[:64]):
        if n == 3:
            node.say(sn.Connect(f"node-{n}", 0, will=True))
            node.say(sn.WillTopic("w"))
            node.say(sn.WillMsg(b"gone"))
        else:
            node.connect(f"node-{n}", keep_alive_s=0, clean=n % 2 == 0)
        rig.now += 0.1
    late = nodes[64]
    assert late.say(sn.Connect("node-late", 30)) == [sn.ConnAck(sn.CONGESTION)], "none is idle yet"
    rig.now += IDLE_S
    for n in (0, 1, 2):
        nodes[n].say(sn.PingReq())
    late.connect("node-late")
    rig.boards["b1"].tick(rig.now)
    assert [one.message.payload for one in rig.taken] == [b"gone"], "the one silent for longest"
    assert rig.count("sessions_evicted", board="b1") == 1
    assert "node-3" not in [one.id for one in rig.gateway.clients()]
    assert len(rig.gateway.clients()) == 64
    nodes[3].take()
    assert nodes[3].say(sn.PingReq()) == [sn.Disconnect()]
