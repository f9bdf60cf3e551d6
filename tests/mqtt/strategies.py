"""Any packet of either version, for hypothesis."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from edge.mqtt import codes, packets, properties
from edge.mqtt.codes import V5, V311
from edge.mqtt.packets import Packet
from edge.mqtt.properties import NONE, PacketProperties

thorough = settings(deadline=None, print_blob=True, max_examples=60)

_LETTERS = st.characters(exclude_characters="\0", codec="utf-8")
_LEVEL = st.text(st.characters(exclude_characters="\0+#/", codec="utf-8"), max_size=6)

texts = st.text(_LETTERS, max_size=12)
blobs = st.binary(max_size=20)
topics = st.lists(_LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda shared, levels, rest: ("$share/g/" if shared else "") + "/".join([*levels, *(["#"] if rest else [])]),
    st.booleans(),
    st.lists(st.one_of(st.just("+"), _LEVEL.filter(lambda level: level != "$share")), min_size=1, max_size=3),
    st.booleans(),
).filter(lambda topic_filter: bool(topic_filter.removeprefix("$share/g/")))
packet_ids = st.integers(1, 0xFFFF)


def _value(row: properties.Property) -> st.SearchStrategy[Any]:
    if row.name == "response_topic":
        return topics
    match row.kind:
        case properties.BIT:
            return st.integers(0, 1)
        case properties.U16:
            return st.integers(row.minimum, 0xFFFF)
        case properties.U32:
            return st.integers(row.minimum, 0xFFFF_FFFF)
        case properties.TEXT:
            return texts
        case _:
            return blobs


@st.composite
def bags(draw: st.DrawFn, packet: int, version: int = V5) -> PacketProperties:
    """Properties a packet of that type may carry."""
    if version == V311 or draw(st.booleans()):
        return NONE
    given: dict[str, Any] = {}
    for row in properties.TABLE:
        if packet not in row.packets or draw(st.integers(0, 3)):
            continue
        if row.kind == properties.PAIR:
            given[row.name] = tuple(draw(st.lists(st.tuples(texts, texts), max_size=3)))
        elif row.kind == properties.VARINT:
            most = 1 if packet == codes.SUBSCRIBE else 3
            given[row.name] = tuple(draw(st.lists(st.integers(1, 268_435_455), max_size=most)))
        else:
            given[row.name] = draw(_value(row))
    if "authentication_data" in given:
        given.setdefault("authentication_method", "m")
    return PacketProperties(**given)


def _code(packet: int, version: int) -> st.SearchStrategy[int]:
    if version == V311:
        return st.sampled_from(sorted(codes.CONNACK_311)) if packet == codes.CONNACK else st.just(0)
    return st.sampled_from(sorted(codes.ALLOWED[packet]))


@st.composite
def _connects(draw: st.DrawFn, version: int) -> packets.Connect:
    will = None
    if draw(st.booleans()):
        will = packets.ConnectWill(
            draw(topics),
            draw(blobs),
            draw(st.integers(0, 2)),
            draw(st.booleans()),
            draw(bags(properties.WILL, version)),
        )
    username, password = draw(st.none() | texts), draw(st.none() | blobs)
    if username is None and version == V311:
        password = None
    client_id = draw(texts)
    clean = draw(st.booleans()) or (version == V311 and not client_id)
    keepalive_s = draw(st.integers(0, 0xFFFF))
    bag = draw(bags(codes.CONNECT, version))
    return packets.Connect(client_id, version, clean, keepalive_s, will, username, password, bag)


@st.composite
def _connacks(draw: st.DrawFn, version: int) -> packets.Connack:
    code = draw(_code(codes.CONNACK, version))
    return packets.Connack(draw(st.booleans()) and not code, code, draw(bags(codes.CONNACK, version)))


@st.composite
def publishes(draw: st.DrawFn, version: int) -> packets.Publish:
    qos, bag = draw(st.integers(0, 2)), draw(bags(codes.PUBLISH, version))
    topic = draw(topics) if bag.topic_alias is None or draw(st.booleans()) else ""
    payload = draw(st.one_of(blobs, st.integers(100, 300).map(bytes)))
    dup = draw(st.booleans()) and qos > 0
    return packets.Publish(topic, payload, qos, draw(st.booleans()), dup, draw(packet_ids) if qos else 0, bag)


@st.composite
def _subscribes(draw: st.DrawFn, version: int) -> packets.Subscribe:
    entries = []
    for topic_filter in draw(st.lists(filters, min_size=1, max_size=3)):
        if version == V311:
            entries.append(packets.Subscription(topic_filter, draw(st.integers(0, 2))))
            continue
        alone = draw(st.booleans()) and not topic_filter.startswith("$share/")
        qos, handling = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        entries.append(packets.Subscription(topic_filter, qos, alone, draw(st.booleans()), handling))
    return packets.Subscribe(draw(packet_ids), tuple(entries), draw(bags(codes.SUBSCRIBE, version)))


@st.composite
def _unsubacks(draw: st.DrawFn, version: int) -> packets.Unsuback:
    given: tuple[int, ...] = ()
    if version == V5:
        given = tuple(draw(st.lists(_code(codes.UNSUBACK, version), min_size=1, max_size=3)))
    return packets.Unsuback(draw(packet_ids), given, draw(bags(codes.UNSUBACK, version)))


def _acknowledgements(kind: int, build: Any, version: int) -> st.SearchStrategy[Packet]:
    return st.builds(build, packet_ids, _code(kind, version), bags(kind, version))


def _subacks(version: int) -> st.SearchStrategy[Packet]:
    allowed = codes.ALLOWED[codes.SUBACK] if version == V5 else codes.SUBACK_311
    given = st.lists(st.sampled_from(sorted(allowed)), min_size=1, max_size=3).map(tuple)
    return st.builds(packets.Suback, packet_ids, given, bags(codes.SUBACK, version))


def _auths() -> st.SearchStrategy[Packet]:
    def build(code: int, bag: PacketProperties, method: str) -> packets.Auth:
        if not code and bag == NONE:
            return packets.Auth()
        return packets.Auth(code, PacketProperties(authentication_method=method, reason=bag.reason, user=bag.user))

    return st.builds(build, _code(codes.AUTH, V5), bags(codes.AUTH), texts)


def kinds(version: int) -> dict[str, st.SearchStrategy[Packet]]:
    """Every packet type of the version, by name."""
    every: dict[str, st.SearchStrategy[Packet]] = {
        "CONNECT": _connects(version),
        "CONNACK": _connacks(version),
        "PUBLISH": publishes(version),
        "PUBACK": _acknowledgements(codes.PUBACK, packets.Puback, version),
        "PUBREC": _acknowledgements(codes.PUBREC, packets.Pubrec, version),
        "PUBREL": _acknowledgements(codes.PUBREL, packets.Pubrel, version),
        "PUBCOMP": _acknowledgements(codes.PUBCOMP, packets.Pubcomp, version),
        "SUBSCRIBE": _subscribes(version),
        "SUBACK": _subacks(version),
        "UNSUBSCRIBE": st.builds(
            packets.Unsubscribe,
            packet_ids,
            st.lists(filters, min_size=1, max_size=3).map(tuple),
            bags(codes.UNSUBSCRIBE, version),
        ),
        "UNSUBACK": _unsubacks(version),
        "PINGREQ": st.just(packets.Pingreq()),
        "PINGRESP": st.just(packets.Pingresp()),
        "DISCONNECT": st.builds(packets.Disconnect, _code(codes.DISCONNECT, version), bags(codes.DISCONNECT, version))
        if version == V5
        else st.just(packets.Disconnect()),
    }
    if version == V5:
        every["AUTH"] = _auths()
    return every


def any_packet(version: int) -> st.SearchStrategy[Packet]:
    return st.one_of(list(kinds(version).values()))
