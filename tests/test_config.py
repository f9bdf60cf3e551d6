from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import Config, ConnectionSettings, load_config, parse_config
from edge.errors import ConfigError

GOOD = """\
[gateway]
name = "cellar"
data_dir = "state"

[cloud]
host = "cloud.example"
ca = "ca.pem"
certificate = "cellar.pem"
key = "cellar.key"

[broker]
host = "127.0.0.1"
port = 1883
tls = false

[[board]]
name = "b1"
port = "/dev/serial/by-id/usb-one"
predefined = { 1 = "dt/b1/temp" }

[[board]]
name = "b2"
port = "usb:2e8a:000a:E66"

[mqttsn.udp]
host = "127.0.0.1"

[[route]]
from = "boards"
topic = "dt/{board}/#"
to = ["cloud", "broker"]

[[route]]
from = "cloud"
topic = "cmd/#"
to = ["boards"]
"""


def check(text: str) -> Config:
    return parse_config(text, "/etc/edgeloop/gateway.toml")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("a1b2-ats.iot.eu-west-1.amazonaws.com", "eu-west-1"),
        ("a1b2.ats.iot.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("broker.example", ""),
        ("a.iot.eu-west-1.amazonaws.com.example", ""),
    ],
)
def test_an_endpoint_of_aws_tells_its_region(host: str, region: str) -> None:
    assert ConnectionSettings(host=host).aws_region == region


AWS_CLOUD = GOOD.replace("cloud.example", "a1-ats.iot.eu-west-1.amazonaws.com")
RULE = '[[rule]]\nname = "r"\nsql = "SELECT c FROM \'a\'"\nto = ["{to}"]\ntopic = "{topic}"\n'


def test_a_rules_topic_that_its_broker_does_not_take_is_refused() -> None:
    deep = "a/${b}/" + "/".join("cdefghi")
    check(GOOD + RULE.format(to="cloud", topic=deep))
    check(AWS_CLOUD + RULE.format(to="broker", topic=deep))
    for text, problem in (
        (AWS_CLOUD + RULE.format(to="cloud", topic=deep), "has 9 levels, at most 8"),
        (GOOD + RULE.format(to="boards", topic="x" + "/x" * 128), "has 129 levels, at most 128"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            check(text)
        assert caught.value.field == "rule[1].topic"
    with pytest.raises(ConfigError, match="has 257 bytes, at most 256") as caught:
        check(f'{AWS_CLOUD}[[stream]]\nname = "s"\nformat = "cbor"\nbatch_topic = "{"x" * 257}"\n')
    assert caught.value.field == "stream[1].batch_topic"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('[[route]]\nfrom = "broker"\ntopic = "$share/g/dt/+"\nto = ["boards"]', "route[3].topic"),
        ('[[stream]]\nname = "s"\nfrom = ["broker"]\ntopics = ["a", "$share/g/dt/+"]', "stream[1].topics"),
        (
            '[[function]]\nname = "f"\nfile = "f.py"\nfrom = ["broker"]\nsubscribe = ["$share/g/dt/+"]',
            "function[1].subscribe",
        ),
    ],
)
def test_a_shared_subscription_is_refused_with_what_to_write(text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=r"write 'dt/\+' instead of '\$share/g/dt/\+'") as caught:
        check(GOOD + text)
    assert caught.value.field == field


def test_a_whole_file_is_understood_with_paths_relative_to_it() -> None:
    config = check(GOOD)
    assert config.cloud is not None
    assert config.cloud.key == "/etc/edgeloop/cellar.key"
    assert config.cloud.client_id == "cellar"
    assert config.control_socket == "/etc/edgeloop/state/control.sock"
    assert [board.name for board in config.boards] == ["b1", "b2"]
    assert config.routes[0].to == ("cloud", "broker")


@pytest.mark.parametrize(
    ("old", "new", "field", "fix"),
    [
        ('host = "cloud.example"', 'hots = "cloud.example"', "cloud.hots", "Did you mean host?"),
        ("[cloud]", "[clowd]", "clowd", "Did you mean cloud?"),
        ('name = "cellar"', "", "gateway.name", "Add name"),
        ('name = "b1"', 'name = "b1/+"', "board[1].name", ""),
        ('name = "b1"', f'name = "{"b" * 24}"', "board[1].name", ""),
        ('name = "b2"', 'name = "b1"', "board[2].name", "Each board has one of its own."),
        ('"usb:2e8a:000a:E66"', '"/dev/serial/by-id/usb-one"', "board[2].port", "Each board has one of its own."),
        ('"usb:2e8a:000a:E66"', '"COM3"', "board[2].port", ""),
        ("port = 1883", "port = 70000", "broker.port", ""),
        ("port = 1883", 'port = "1883"', "broker.port", ""),
        ('key = "cellar.key"', "", "cloud.key", "go together"),
        ("tls = false", 'tls = false\nca = "ca.pem"', "broker.tls", "Remove one"),
        ("{ 1 =", "{ 0 =", "board[1].predefined", "1 to 65534"),
        ("{ 1 =", "{ 65535 =", "board[1].predefined", "1 to 65534"),
        ('"dt/b1/temp"', '"dt/+/temp"', "board[1].predefined.1", "Name a topic."),
        ('to = ["boards"]', 'to = ["bords"]', "route[2].to", "Did you mean boards?"),
        ('to = ["boards"]', "to = []", "route[2].to", "Name one or more"),
        ('to = ["boards"]', 'to = ["cloud"]', "route[2].to", "Remove it."),
        ('from = "cloud"', 'from = "board:b9"', "route[2].from", "Did you mean board:b"),
        ('"cmd/#"', '"cmd/#/x"', "route[2].topic", "filter"),
        ('"cmd/#"', '"cmd/\\u0000"', "route[2].topic", "filter"),
        ('"cmd/#"', '"cmd/{board}"', "route[2].topic", "use + instead"),
        ("[[route]]", "[route]", "route", "Write it as [[route]]"),
        ('data_dir = "state"', f'data_dir = "{"d" * 200}"', "gateway.data_dir", "shorter"),
        ('data_dir = "state"', "data_dir =", "", "Mend the line"),
    ],
)
def test_what_is_wrong_is_named_with_its_field_and_the_fix(old: str, new: str, field: str, fix: str) -> None:
    text = (
        GOOD.replace(old, new, 1) if new != "[route]" else GOOD.partition("[[route]]")[0] + '[route]\nfrom = "cloud"\n'
    )
    assert text != GOOD
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert caught.value.field.startswith(field)
    assert fix in caught.value.fix
    assert str(caught.value).startswith("/etc/edgeloop/gateway.toml: ")


def test_routes_that_would_send_a_message_round_for_ever_are_refused() -> None:
    loop = '[[route]]\nfrom = "cloud"\ntopic = "a/#"\nto = ["broker"]\n[[route]]\nfrom = "broker"\ntopic = "+/b"\n'
    with pytest.raises(ConfigError, match="sends back"):
        check(f'{GOOD}{loop}to = ["cloud"]\n')


def test_a_route_to_a_connection_that_is_not_configured_is_refused() -> None:
    with pytest.raises(ConfigError, match="nowhere in this file"):
        check(GOOD.replace("[broker]", "[mqttsn]\n#").replace('host = "127.0.0.1"\nport = 1883\ntls = false\n', "", 1))


def test_a_file_that_is_not_there_or_not_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_bytes(b"[gateway]\nname = \xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 17"):
        load_config(str(tmp_path / "bad.toml"))


@given(st.text(max_size=200))
def test_any_text_gives_a_config_or_a_config_error(text: str) -> None:
    try:
        check(text)
    except ConfigError as error:
        assert error.fix


@given(st.data())
def test_any_line_changed_gives_a_config_or_a_config_error(data: st.DataObject) -> None:
    lines = GOOD.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    values = ["0", "-1", "1e999", '"x"', "[]", "{}", "true", "1979-05-27", "nan", '[["a"]]']
    lines[place] = lines[place].split("=")[0] + "= " + data.draw(st.sampled_from(values))
    try:
        check("\n".join(lines))
    except ConfigError as error:
        assert error.fix


@pytest.mark.parametrize("file", sorted(Path("device_configs").glob("*.toml")), ids=str)
def test_every_example_in_device_configs_is_valid(file: Path) -> None:
    assert load_config(str(file)).routes


STREAMS = """\
[gateway]
name = "g"
[cloud]
host = "c"
[broker]
host = "b"
[[stream]]
name = "s"
from = ["broker"]
topics = ["dt/#", "log/#"]
"""


def test_a_streams_sources_and_topics_are_routes_to_it() -> None:
    config = parse_config(STREAMS, "g.toml")
    assert [(route.source, route.topic, route.to) for route in config.all_routes] == [
        ("broker", "dt/#", ("stream:s",)),
        ("broker", "log/#", ("stream:s",)),
    ]
    assert config.streams[0].commit_interval_s == 0


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("bytes_max = 100000", "stream[1].bytes_max"),
        ('commit = "soon"', "stream[1].commit"),
        ('export = "broker"', "stream[1].from"),
        ('batch_topic = "a/#"', "stream[1].batch_topic"),
        ('[[stream]]\nname = "s"', "stream[2].name"),
        ('[[route]]\nfrom = "cloud"\ntopic = "x"\nto = ["stream:s"]', "route[1].topic"),
        ('[[route]]\nfrom = "broker"\ntopic = "x"\nto = ["stream:t"]', "route[1].to"),
        ('[[route]]\nfrom = "cloud"\ntopic = "dt/a"\nto = ["broker"]', "stream[1].topics"),
    ],
)
def test_a_stream_that_cannot_be_is_refused_by_its_field(line: str, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(STREAMS + line, "g.toml")
    assert refused.value.field == field
