"""One session against a model that knows only what the standard promises a client."""

from collections.abc import Iterable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message, Outcome
from edge.topics import matches
from tests.boards.rig import Rig
from tests.boards.sn_client import SnClient, Told

TOPICS = ("a/1", "a/2", "b/1", "xy", "pre/7")
FILTERS = ("a/1", "a/+", "b/#", "xy", "pre/7", "#")
KEEP_ALIVE_S = 20
SLEEP_S = 100


class Session(RuleBasedStateMachine):
    """known: the topics the client may name; at_gateway: QoS 1 publishes from the client that are not settled."""

    def __init__(self) -> None:
        super().__init__()
        boards = [BoardSettings(name="b1", port="/dev/b1", predefined={"7": "pre/7"})]
        self.rig = Rig(
            boards=boards,
            settings=MqttSnSettings(retry_s=5, retries=3, queue_messages_max=4, sleeping_messages_max=3),
            settle=lambda message: None,
        )
        self.client = SnClient(self.rig, "b1")
        self.state, self.clean = "disconnected", True
        self.spoke = self.rig.now
        self.subscriptions: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.told = Told()
        self.offered: dict[int, str] = {}
        self.receipt = self.message_id = 0
        self.under_way: sn.Publish | None = None
        self.at_gateway: list[int] = []
        self.unanswered: sn.Publish | None = None
        self.seen: list[int] = []
        self.published = 0
        self.drained = True

    # What the client does.

    @rule(clean=st.booleans())
    def connect(self, clean: bool) -> None:
        asleep = self.state == "asleep"
        heard = self.say(sn.Connect("b1", KEEP_ALIVE_S, clean_session=clean))
        assert heard[0] == sn.ConnAck()
        if not asleep:
            if clean:
                self.forget()
            self.clean = clean
        self.state = "active"
        self.hear(heard[1:])

    @precondition(lambda self: self.state != "active")
    @rule()
    def speak_unconnected(self) -> None:
        if self.state == "disconnected":
            assert self.say(sn.Register(0, 9, "a/1")) in ([sn.Disconnect()], [])

    @precondition(lambda self: self.state == "active")
    @rule(topic=st.sampled_from(TOPICS[:3]))
    def register(self, topic: str) -> None:
        heard = self.say(sn.Register(0, 9, topic))
        answer = next(one for one in heard if isinstance(one, sn.RegAck))
        self.learn(topic, answer.topic_id)
        self.hear([one for one in heard if one is not answer])

    @precondition(lambda self: self.state == "active" and self.ids)
    @rule(qos=st.sampled_from((0, 1)), pick=st.integers(0, 99))
    def publish(self, qos: int, pick: int) -> None:
        topic = sorted(self.ids)[pick % len(self.ids)]
        self.message_id += 1
        packet = sn.Publish(self.ids[topic], b"%d" % self.message_id, self.message_id if qos else 0, qos)
        waiting = len(self.rig.waiting)
        heard = self.say(packet)
        if qos and self.at_gateway:
            assert sn.PubAck(packet.topic_id, packet.message_id, sn.CONGESTION) in heard, "one at a time"
            assert len(self.rig.waiting) == waiting
        else:
            assert len(self.rig.waiting) == waiting + 1
            assert self.rig.waiting[-1][1].topic == topic
            self.published += 1
            if qos:
                self.at_gateway.append(packet.message_id)
                self.unanswered = packet
            else:
                self.rig.waiting.pop()
        self.hear(one for one in heard if not isinstance(one, sn.PubAck))

    @precondition(lambda self: self.state == "active" and self.unanswered and self.at_gateway)
    @rule()
    def repeat(self) -> None:
        assert self.unanswered is not None
        one = self.unanswered
        again = sn.Publish(one.topic_id, one.payload, one.message_id, 1, dup=True)
        before = len(self.rig.waiting)
        heard = self.say(again)
        assert not any(isinstance(packet, sn.PubAck) for packet in heard)
        assert len(self.rig.waiting) == before
        self.hear(heard)

    @precondition(lambda self: self.at_gateway and self.rig.waiting)
    @rule(outcome=st.sampled_from(list(Outcome)))
    def settle(self, outcome: Outcome) -> None:
        self.rig.settle_waiting(outcome)
        heard = self.client.take()
        answers = [one.message_id for one in heard if isinstance(one, sn.PubAck)]
        if self.state != "disconnected":
            assert answers == self.at_gateway
        self.at_gateway.clear()
        self.unanswered = None
        self.hear(one for one in heard if not isinstance(one, sn.PubAck))

    @precondition(lambda self: self.state == "active")
    @rule(topic_filter=st.sampled_from(FILTERS), qos=st.sampled_from((0, 1)))
    def subscribe(self, topic_filter: str, qos: int) -> None:
        heard = self.say(sn.Subscribe(8, topic_filter, qos=qos))
        answer = next(one for one in heard if isinstance(one, sn.SubAck))
        assert (answer.return_code, answer.qos) == (sn.ACCEPTED, qos)
        assert bool(answer.topic_id) == ("+" not in topic_filter and "#" not in topic_filter)
        if answer.topic_id:
            self.learn(topic_filter, answer.topic_id)
        self.subscriptions[topic_filter] = qos
        self.hear([one for one in heard if one is not answer])

    @precondition(lambda self: self.state == "active")
    @rule(topic_filter=st.sampled_from(FILTERS))
    def unsubscribe(self, topic_filter: str) -> None:
        heard = self.say(sn.Unsubscribe(8, topic_filter))
        assert sn.UnsubAck(8) in heard
        self.subscriptions.pop(topic_filter, None)
        self.hear(one for one in heard if not isinstance(one, sn.UnsubAck))

    @precondition(lambda self: self.under_way and self.state == "active")
    @rule()
    def acknowledge(self) -> None:
        self.answer_under_way()

    @precondition(lambda self: self.state == "active")
    @rule()
    def sleep(self) -> None:
        heard = self.say(sn.Disconnect(SLEEP_S))
        assert heard[-1] == sn.Disconnect()
        self.state = "asleep"
        self.under_way = None

    @precondition(lambda self: self.state == "asleep")
    @rule()
    def drain(self) -> None:
        self.drained = False
        self.hear(self.say(sn.PingReq("b1")))
        while not self.drained:
            self.answer_under_way()
        assert self.under_way is None

    @precondition(lambda self: self.state == "active")
    @rule()
    def disconnect(self) -> None:
        heard = self.say(sn.Disconnect())
        assert heard[-1] == sn.Disconnect()
        self.leave()

    # What others do.

    @rule(topic=st.sampled_from(TOPICS), qos=st.sampled_from((0, 1)))
    def deliver(self, topic: str, qos: int) -> None:
        self.receipt += 1
        wanted = [granted for one, granted in self.subscriptions.items() if matches(one, topic)]
        message = Message(topic, b"%d" % self.receipt, qos, receipt=self.receipt)
        self.rig.gateway.target("boards").send([message], self.told)
        if not wanted:
            assert self.told.ended.get(self.receipt) in ({"taken", "congested"} if qos else {None})
        elif qos and max(wanted):
            self.offered[self.receipt] = topic
            if self.state != "active":
                assert self.told.ended[self.receipt] == "taken", "one that sleeps holds up nobody"
        elif qos:
            assert self.told.ended[self.receipt] == "taken"
        heard = self.client.take()
        if self.state != "active":
            assert heard == []
        self.hear(heard)

    @rule(seconds=st.sampled_from((1, 4, 11, 31)))
    def wait(self, seconds: int) -> None:
        heard = self.client.after(seconds)
        limit = {"active": KEEP_ALIVE_S * 1.5, "asleep": SLEEP_S * 1.1}.get(self.state)
        quiet = self.rig.now - self.spoke
        if limit is not None and (quiet >= limit or not self.rig.gateway.clients()):
            self.leave()
            heard = []
        elif self.state == "active" and self.rig.gateway.clients()[0].state == "lost":
            assert quiet >= 15, "not before N_retry or the keep-alive"
            self.leave()
            heard = []
        self.hear(heard)

    # What must hold.

    @invariant()
    def the_gateway_sees_the_same_state(self) -> None:
        clients = self.rig.gateway.clients()
        if self.state == "disconnected":
            assert not clients or clients[0].state in {"disconnected", "lost"}
        else:
            assert [one.state for one in clients] == [self.state]
            assert clients[0].subscriptions == len(self.subscriptions)

    @invariant()
    def first_deliveries_come_in_order(self) -> None:
        assert self.seen == sorted(self.seen)

    # Within the model.

    def say(self, *packets: sn.Packet) -> list[sn.Packet]:
        self.spoke = self.rig.now
        return self.client.say(*packets)

    def hear(self, packets: Iterable[sn.Packet]) -> None:
        """What the gateway sent by itself: REGISTER is answered at once, PUBLISH is kept until acknowledged."""
        for packet in list(packets):
            if isinstance(packet, sn.Register):
                self.learn(packet.topic, packet.topic_id)
                self.hear(self.say(sn.RegAck(packet.topic_id, packet.message_id)))
            elif isinstance(packet, sn.Publish):
                assert self.state == "active" or not self.drained
                self.got(packet)
            elif isinstance(packet, sn.PingResp) and self.state == "asleep":
                assert not self.drained
                self.drained = True
            else:
                raise AssertionError(f"unexpected {packet}")

    def got(self, packet: sn.Publish) -> None:
        if packet.topic_type == sn.NORMAL:
            topic = self.names[packet.topic_id]
        elif packet.topic_type == sn.PREDEFINED:
            topic = {7: "pre/7"}[packet.topic_id]
        else:
            topic = mqttsn.short_topic(packet.topic_id)
        assert topic in TOPICS
        number = int(packet.payload)
        if packet.qos:
            assert self.under_way is None or self.under_way.message_id == packet.message_id, "one at a time"
            assert self.offered[number] == topic
            self.under_way = packet
        if number not in self.seen:
            self.seen.append(number)

    def answer_under_way(self) -> None:
        packet = self.under_way
        assert packet is not None
        self.under_way = None
        heard = self.say(sn.PubAck(packet.topic_id, packet.message_id))
        assert self.told.ended.get(int(packet.payload)) == "taken", "settled when acknowledged, or by its keeper"
        self.hear(heard)

    def learn(self, topic: str, number: int) -> None:
        assert self.names.get(number, topic) == topic, "an id means one topic"
        self.names[number] = topic
        self.ids[topic] = number

    def leave(self) -> None:
        self.state = "disconnected"
        self.under_way = None
        if self.clean:
            self.forget()

    def forget(self) -> None:
        self.subscriptions.clear()
        self.ids.clear()
        self.names.clear()
        self.under_way = None
        self.at_gateway.clear()
        self.unanswered = None
        self.rig.waiting.clear()

    def teardown(self) -> None:
        ended = set(self.told.ended.values())
        assert ended <= {"taken", "congested"}


Session.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSession = Session.TestCase
