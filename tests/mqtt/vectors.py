"""Packets as bytes, by hand from both standards: whole ones, and one malformed packet for each way to be so."""

from edge.mqtt import packets as p
from edge.mqtt.codes import V5, V311
from edge.mqtt.packets import Packet
from edge.mqtt.properties import PacketProperties

# Written by hand from the standards: their own figures where they give one, their tables where they do not.
VECTORS: list[tuple[int, str, Packet]] = [
    # 3.1.2.12, the non-normative example: all flags but will retain, QoS 1, keep alive 10, session expiry 10
    (
        V5,
        "10 25 0004 4d515454 05 ce 000a 05 11 0000000a 0001 61 00 0001 77 0002 6279 0004 75736572 0002 7077",
        p.Connect(
            "a", V5, True, 10, p.ConnectWill("w", b"by", 1, False), "user", b"pw", PacketProperties(session_expiry_s=10)
        ),
    ),
    (
        V311,
        "10 1e 0004 4d515454 04 ce 000a 0001 61 0001 77 0002 6279 0004 75736572 0002 7077",
        p.Connect("a", V311, True, 10, p.ConnectWill("w", b"by", 1, False), "user", b"pw"),
    ),
    (V5, "10 0d 0004 4d515454 05 02 0000 00 0000", p.Connect("")),
    (V5, "20 03 01 00 00", p.Connack(True)),
    (V5, "20 06 00 00 03 21 0014", p.Connack(properties=PacketProperties(receive_maximum=20))),
    (V311, "20 02 00 05", p.Connack(code=5)),
    # 3.3.2.4, the non-normative example: topic "a/b", packet identifier 10, no properties
    (V5, "32 08 0003 612f62 000a 00", p.Publish("a/b", b"", 1, packet_id=10)),
    (V311, "32 07 0003 612f62 000a", p.Publish("a/b", b"", 1, packet_id=10)),
    (V5, "3d 0a 0003 612f62 000a 00 6869", p.Publish("a/b", b"hi", 2, True, True, 10)),
    (V5, "30 09 0000 03 23 0001 78 79 7a", p.Publish("", b"xyz", properties=PacketProperties(topic_alias=1))),
    (
        V5,
        "30 12 0001 74 0e 01 01 0b ffffff7f 26 0001 6b 0001 76",
        p.Publish(
            "t", b"", properties=PacketProperties(payload_format=1, user=(("k", "v"),), subscription_ids=(268435455,))
        ),
    ),
    (V5, "40 02 1234", p.Puback(0x1234)),
    (V5, "40 03 1234 10", p.Puback(0x1234, 0x10)),
    (V5, "50 07 1234 97 03 1f 0000", p.Pubrec(0x1234, 0x97, PacketProperties(reason=""))),
    (V5, "62 03 0001 92", p.Pubrel(1, 0x92)),
    (V311, "62 02 0001", p.Pubrel(1)),
    (V5, "70 02 ffff", p.Pubcomp(65535)),
    # 3.8.3, figure 3-21: "a/b" with QoS 1 and "c/d" with QoS 2, packet identifier 10
    (
        V5,
        "82 0f 000a 00 0003 612f62 01 0003 632f64 02",
        p.Subscribe(10, (p.Subscription("a/b", 1), p.Subscription("c/d", 2))),
    ),
    (
        V311,
        "82 0e 000a 0003 612f62 01 0003 632f64 02",
        p.Subscribe(10, (p.Subscription("a/b", 1), p.Subscription("c/d", 2))),
    ),
    (
        V5,
        "82 0a 000a 02 0b 07 0002 2f23 2d",
        p.Subscribe(10, (p.Subscription("/#", 1, True, True, 2),), PacketProperties(subscription_ids=(7,))),
    ),
    # 3.1.1, figure 3.26: maximum QoS 0, maximum QoS 2, failure
    (V311, "90 05 000a 00 02 80", p.Suback(10, (0, 2, 0x80))),
    (V5, "90 06 000a 00 00 02 80", p.Suback(10, (0, 2, 0x80))),
    (V311, "a2 0c 000a 0003 612f62 0003 632f64", p.Unsubscribe(10, ("a/b", "c/d"))),
    (V5, "a2 0d 000a 00 0003 612f62 0003 632f64", p.Unsubscribe(10, ("a/b", "c/d"))),
    (V311, "b0 02 000a", p.Unsuback(10)),
    (V5, "b0 05 000a 00 00 11", p.Unsuback(10, (0, 0x11))),
    (V5, "c0 00", p.Pingreq()),
    (V311, "d0 00", p.Pingresp()),
    (V5, "e0 00", p.Disconnect()),
    (V5, "e0 01 04", p.Disconnect(4)),
    (V5, "e0 07 00 05 11 00000000", p.Disconnect(0, PacketProperties(session_expiry_s=0))),
    (V311, "e0 00", p.Disconnect()),
    (
        V5,
        "f0 09 18 07 15 0001 6d 16 0000",
        p.Auth(0x18, PacketProperties(authentication_method="m", authentication_data=b"")),
    ),
    (V5, "f0 00", p.Auth()),
]

# reason, clause's code, version, bytes
MALFORMED: list[tuple[str, int, int, str]] = [
    ("remaining_length", 0x81, V5, "c0 80808080"),
    ("remaining_length", 0x81, V5, "30 ffffffff 01"),
    ("remaining_length", 0x81, V5, "c0 8000"),
    ("packet_type", 0x81, V5, "00 00"),
    ("packet_type", 0x81, V311, "f0 00"),
    ("reserved_flags", 0x81, V5, "c1 00"),
    ("reserved_flags", 0x81, V5, "60 02 0001"),
    ("reserved_flags", 0x81, V5, "80 07 0001 00 0001 61 00"),
    ("reserved_flags", 0x81, V311, "a0 05 0001 0001 61"),
    ("reserved_flags", 0x81, V5, "42 02 0001"),
    ("packet_too_large", 0x95, V5, "30 818040"),
    ("qos", 0x81, V5, "36 06 0001 61 0001 00"),
    ("dup", 0x81, V5, "38 04 0001 61 00"),
    ("packet_id_zero", 0x82, V5, "32 06 0001 61 0000 00"),
    ("packet_id_zero", 0x82, V311, "40 02 0000"),
    ("packet_id_zero", 0x82, V5, "82 07 0000 00 0001 61 00"),
    ("topic_wildcard", 0x90, V5, "30 06 0003 612f2b 00"),
    ("topic_wildcard", 0x90, V311, "30 05 0003 612f23"),
    ("topic_empty", 0x82, V5, "30 03 0000 00"),
    ("topic_empty", 0x90, V311, "30 02 0000"),
    ("nul", 0x81, V5, "30 05 0002 6100 00"),
    ("bad_utf8", 0x81, V5, "30 05 0002 c328 00"),
    ("bad_utf8", 0x81, V5, "30 06 0003 eda080 00"),  # a surrogate
    ("bad_utf8", 0x81, V311, "30 04 0002 c080"),  # an overlong NUL
    ("truncated", 0x81, V5, "30 04 0005 6161"),
    ("truncated", 0x81, V5, "32 03 0001 61"),
    ("truncated", 0x81, V5, "30 04 0001 61 05"),
    ("truncated", 0x81, V5, "30 01 00"),
    ("property_repeated", 0x82, V5, "30 08 0001 61 04 01 01 01 01"),
    ("property_repeated", 0x82, V5, "82 0b 0001 04 0b 01 0b 01 0001 61 00"),
    ("property_unknown", 0x81, V5, "30 06 0001 61 02 04 00"),
    ("property_misplaced", 0x81, V5, "30 09 0001 61 05 11 00000001"),
    ("property_value", 0x94, V5, "30 07 0001 61 03 23 0000"),
    ("property_value", 0x82, V5, "30 06 0001 61 02 01 02"),
    ("property_value", 0x82, V5, "30 06 0001 61 02 0b 00"),
    ("property_value", 0x82, V5, "20 06 00 00 03 21 0000"),
    ("property_value", 0x82, V5, "20 08 00 00 05 27 00000000"),
    ("property_value", 0x82, V5, "20 05 00 00 02 24 02"),
    ("topic_wildcard", 0x90, V5, "30 08 0001 61 04 08 0001 23"),
    ("varint_padded", 0x81, V5, "30 07 0001 61 03 0b 81 00"),
    ("varint_too_long", 0x81, V5, "30 09 0001 61 05 0b 80808080"),
    ("authentication_method_missing", 0x82, V5, "20 06 00 00 03 16 0000"),
    ("authentication_method_missing", 0x82, V5, "f0 01 18"),
    ("reason_code", 0x82, V5, "40 03 0001 92"),
    ("reason_code", 0x82, V5, "e0 01 01"),
    ("reason_code", 0x82, V5, "90 04 0001 00 03"),
    ("reason_code", 0x82, V311, "90 03 0001 03"),
    ("reason_code", 0x82, V311, "20 02 00 06"),
    ("reserved_flags", 0x81, V5, "20 03 02 00 00"),
    ("session_present", 0x82, V5, "20 03 01 87 00"),
    ("empty", 0x82, V5, "82 03 0001 00"),
    ("empty", 0x82, V5, "90 03 0001 00"),
    ("empty", 0x82, V5, "a2 03 0001 00"),
    ("qos", 0x82, V5, "82 07 0001 00 0001 61 03"),
    ("reserved_flags", 0x81, V5, "82 07 0001 00 0001 61 40"),
    ("reserved_flags", 0x81, V311, "82 06 0001 0001 61 04"),
    ("retain_handling", 0x82, V5, "82 07 0001 00 0001 61 30"),
    ("no_local_shared", 0x82, V5, "82 10 0001 00 000a 2473686172652f672f61 04"),
    ("topic_filter", 0x8F, V5, "82 08 0001 00 0002 2361 00"),
    ("topic_filter", 0x8F, V5, "82 06 0001 00 0000 00"),
    ("topic_filter", 0x8F, V5, "82 0f 0001 00 0009 2473686172652f2f61 00"),
    ("trailing_bytes", 0x81, V5, "c0 01 00"),
    ("trailing_bytes", 0x81, V311, "40 03 0001 00"),
    ("trailing_bytes", 0x81, V311, "e0 01 00"),
    ("trailing_bytes", 0x81, V5, "40 05 0001 00 00 00"),
    ("trailing_bytes", 0x81, V311, "b0 03 0001 00"),
    ("protocol_name", 0x84, V5, "10 0f 0006 4d5149736470 03 02 0000 0001 61"),
    ("protocol_version", 0x84, V5, "10 0d 0004 4d515454 06 02 0000 00 0000"),
    ("reserved_flags", 0x81, V5, "10 0d 0004 4d515454 05 03 0000 00 0000"),
    ("will_flags", 0x81, V5, "10 0d 0004 4d515454 05 0a 0000 00 0000"),
    ("will_flags", 0x81, V5, "10 0d 0004 4d515454 05 1e 0000 00 0000"),
    ("password_alone", 0x81, V311, "10 0e 0004 4d515454 04 42 0000 0000 0000"),
    ("client_id_empty", 0x85, V311, "10 0c 0004 4d515454 04 00 0000 0000"),
    ("trailing_bytes", 0x81, V5, "10 0e 0004 4d515454 05 02 0000 00 0000 00"),
]
