"""What an expression of SQL gives, as a table."""

from typing import Any

import pytest

from edge.messages import Message, Properties, Reading
from tests.rules.making import rows, rule, value


@pytest.mark.parametrize(
    ("expression", "doc", "expected"),
    [
        ("a", {"a": 1}, 1),
        ("a.b[1].c", {"a": {"b": [0, {"c": "x"}]}}, "x"),
        ("a['b c']", {"a": {"b c": 2}}, 2),
        ("a.b.c.d.e.f", {"a": {"b": {"c": {"d": {"e": {"f": 3}}}}}}, 3),
        ("a.b", {"a": "text"}, None),
        ("a", [1], None),
        ("*", [1], [1]),
        ("a + 2 * b - 1", {"a": 1, "b": 3}, 6),
        ("a / b", {"a": 7, "b": 2}, 3.5),
        ("a / b", {"a": 8, "b": 2}, 4),
        ("a / b", {"a": 1, "b": 0}, None),
        ("a % 3", {"a": 7}, 1),
        ("a * b", {"a": "x" * 100, "b": 10**9}, None),
        ("a * a * a", {"a": 1e200}, None),
        ("a % b", {"a": "%s%s", "b": 1}, None),
        ("-a", {"a": 4}, -4),
        ("a + b", {"a": "x", "b": "y"}, "xy"),
        ("a > 1", {"a": None}, None),
        ("a > 1", {"a": "2"}, None),
        ("CASE WHEN a > 1 THEN 'hot' WHEN a > 0 THEN 'warm' ELSE 'cold' END", {"a": 1}, "warm"),
        ("CASE a WHEN 1 THEN 'one' END", {"a": 2}, None),
        ("topic()", {}, "dt/b1/temp"),
        ("topic(2)", {}, "b1"),
        ("topic(9)", {}, None),
        ("timestamp()", {}, 1000),
        ("upper(a)", {"a": "x"}, "X"),
        ("substring(a, 1, 3)", {"a": "abcd"}, "bc"),
        ("concat(a, '-', b)", {"a": "x", "b": 2}, "x-2"),
        ("length(a)", {"a": 5}, None),
        ("round(a, 1)", {"a": 2.26}, 2.3),
        ("floor(a)", {"a": 2.7}, 2),
        ("sqrt(a)", {"a": -1}, None),
        ("power(a, 2)", {"a": 1e300}, None),
        ("ln(a)", {"a": 0}, None),
        ("abs(a)", {"a": True}, None),
        ("encode(a, 'base64')", {"a": "hi"}, "aGk="),
        ("decode(a, 'base64')", {"a": "aGk="}, "hi"),
        ("decode(a, 'base64')", {"a": "!"}, None),
        ("get(a, 'b')", {"a": {"b": 1}}, 1),
        ("get(a, b)", {"a": [7, 8], "b": 1}, 8),
        ("nanvl(a, 0)", {}, 0),
        ("coalesce(a, b, 3)", {"b": 2}, 2),
        ("to_number(a)", {"a": " 2.5 "}, 2.5),
        ("replace(a, 'x', 'yy')", {"a": "axa"}, "ayya"),
        ("replace(a, 'x', a)", {"a": "x" * 100_000}, None),
        ("indexof(a, 'b')", {"a": "ab"}, 1),
        ("isundefined(a)", {}, True),
        ("cast(a AS int)", {"a": "2.5"}, 3),
        ("cast(a AS Integer)", {"a": -2.5}, -3),
        ("cast(a, 'bigint')", {"a": True}, 1),
        ("CAST(a AS decimal)", {"a": " 7 "}, 7.0),
        ("cast(a AS float)", {"a": "x"}, None),
        ("cast(a AS string)", {"a": {"b": [1, None]}}, '{"b":[1,null]}'),
        ("cast(a AS string)", {"a": 1.5}, "1.5"),
        ("cast(a AS boolean)", {"a": "TRUE"}, True),
        ("cast(a AS bool)", {"a": 0}, False),
        ("cast(a AS bool)", {"a": "yes"}, None),
        ("cast(a AS int)", {"a": [1]}, None),
        ("cast(a AS int)", {"a": 1e300}, 1e300),
        ("cast(a AS string)", {"a": {"b": "x" * 200_000}}, None),
        ("regexp_matches(a, '^b[0-9]+$')", {"a": "b12"}, True),
        ("regexp_matches(a, '(hi)*')", {"a": 5}, None),
        ("regexp_substr(a, '(hi)*')", {"a": "hihihello"}, "hihi"),
        ("regexp_replace(a, 'a(b*)c', '$1')", {"a": "abcd"}, "bd"),
        ("regexp_matches(a, '(x+x+)+y')", {"a": "x" * 1000}, False),
        ("parse_time('yyyy-MM-dd HH:mm:ss', a)", {"a": 1_700_000_000_123}, "2023-11-14 22:13:20"),
        ("parse_time('EEEE, d MMMM yy h:mm a', a)", {"a": 0}, "Thursday, 1 January 70 12:00 AM"),
        ("parse_time('yyyyMMdd''T''HHmmss.SSSZ', a, '+01:30')", {"a": 1_500}, "19700101T013001.500+0130"),
        ("parse_time('HH z', a, 'Europe/Rome')", {"a": 0}, "01 CET"),
        ("parse_time('yyyy', a)", {"a": 10**18}, None),
        ("parse_time('yyyy', a)", {"a": "now"}, None),
        ("format_time(a, 'DDD HH:mm X')", {"a": 86_400_000}, "002 00:00 Z"),
        ("time_to_epoch(a, 'yyyy-MM-dd HH:mm:ss z')", {"a": "2020-04-03 09:45:18 UTC+01:00"}, 1_585_903_518_000),
        ("time_to_epoch(a, 'dd MMMM yyyy')", {"a": "18 December 2015"}, 1_450_396_800_000),
        ("time_to_epoch(a, 'yyyyMMddHHmm')", {"a": "201512180130"}, 1_450_402_200_000),
        ("time_to_epoch(a, 'yyyy-MM-dd')", {"a": "2015-13-40"}, None),
        ("time_to_epoch(a, 'yyyy-MM-dd')", {"a": "soon"}, None),
        ("time_to_epoch(a, 'h:mm a')", {"a": "1:30 PM"}, 48_600_000),
        ("length(newuuid())", {}, 36),
        (
            "regexp_matches(newuuid(), '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$')",
            {},
            True,
        ),
        ("newuuid() = newuuid()", {}, False),
        ("rand() BETWEEN 0 AND 1", {}, True),
        ("clientid()", {}, "n/a"),
        ("get_mqtt_property('content_type')", {}, None),
        ("get_user_properties('x')", {}, None),
        ("encode(*, 'base64')", {}, ""),
        ("get_or_default(a, 'none')", {}, "none"),
        ("bitand(a, 12)", {"a": 10}, 8),
        ("bitor(a, 12)", {"a": 10}, 14),
        ("bitxor(a, 12)", {"a": 10}, 6),
        ("bitnot(a)", {"a": 10}, -11),
        ("bitand(a, 1)", {"a": 1.5}, None),
        ("bitand(a, 1)", {"a": 2**70}, None),
        ("chr(a)", {"a": 65}, "A"),
        ("chr(a)", {"a": 0xD800}, None),
        ("chr(a)", {"a": 1e9}, None),
        ("numbytes(a)", {"a": "é"}, 2),
        ("lpad(a, 2)", {"a": "x"}, "  x"),
        ("rpad(a, 1)", {"a": 5}, "5 "),
        ("lpad(a, b)", {"a": "x", "b": 10**12}, None),
        ("trunc(a, 2)", {"a": 2.3388}, 2.33),
        ("trunc(a)", {"a": -2.9}, -2),
        ("trunc(a, 2)", {"a": 1e308}, None),
        ("remainder(a, 3)", {"a": 8}, 2),
        ("remainder(a, 0)", {"a": 8}, None),
        ("atan2(a, a)", {"a": 0}, 0),
        ("acos(a)", {"a": 2}, None),
        ("cosh(a)", {"a": 1e6}, None),
        ("cot(a)", {"a": 0}, None),
        ("degrees(pi())", {}, 180),
        ("sha1(a)", {"a": ""}, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("split_value(a, '/', 1)", {"a": "x/y"}, "y"),
        ("split_value(a, '/', 5)", {"a": "x/y"}, None),
        ("hex2dec(a)", {"a": "0x1f"}, 31),
        ("dec2hex(a)", {"a": 31}, "1f"),
        ("element_at(a, 1)", {"a": [1, 2]}, 2),
        ("cardinality(a)", {"a": [1, 2]}, 2),
        ("array_contains(a, 2)", {"a": [1, 2.0]}, True),
        ("keys(a)", {"a": {"b": 1}}, ["b"]),
        ("sha256(a)", {"a": ""}, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ],
)
def test_an_expression_gives_what_the_table_says(expression: str, doc: Any, expected: Any) -> None:
    assert value(expression, doc) == expected


def test_a_message_tells_its_sender_and_its_properties() -> None:
    properties = Properties(
        content_type="text/x", response_topic="r", correlation_data=b"7", user=(("k", "1"), ("k", "2"))
    )
    message = Message("a", b"\xff", properties=properties, reading=Reading("b7", 1, 1))
    made = rule(
        "SELECT clientid() AS id, get_mqtt_property('content_type') AS t, get_mqtt_property('response_topic') AS r, "
        "get_mqtt_property('correlation_data') AS d, get_mqtt_property('format_indicator') AS f, "
        "get_mqtt_property('other') AS o, get_user_properties('k') AS k, encode(*, 'hex') AS raw FROM 'a'"
    )
    assert made.run([message], [{}], 0) == [
        (
            message,
            {
                "id": "b7", "t": "text/x", "r": "r", "d": "7", "f": "UNSPECIFIED_BYTES", "o": None, "k": ["1", "2"],
                "raw": "ff",
            },
        )
    ]  # fmt: skip


def test_lookup_finds_a_column_of_a_table() -> None:
    made = rule(
        "SELECT lookup('sites', topic(2), 'room') AS r FROM 'dt/#'", tables={"sites": {"b1": {"room": "attic"}}}
    )
    assert rows(made, [{}]) == [{"r": "attic"}]
    assert rows(made, [{}], topic="dt/b9/temp") == [{"r": None}]
