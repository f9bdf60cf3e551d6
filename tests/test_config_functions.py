import pytest

from edge.config import Config, parse_config
from edge.errors import ConfigError

GATEWAY = """\
[gateway]
name = "cellar"

[cloud]
host = "cloud.example"

[broker]
host = "127.0.0.1"
tls = false

[[board]]
name = "b1"
port = "/dev/ttyUSB0"

[[stream]]
name = "readings"

[[rule]]
name = "cold"
sql = "SELECT c FROM 'dt/+/temp' WHERE c < 4"
to = ["cloud"]
"""

FUNCTION = """
[[function]]
name = "mean"
file = "functions/mean.py"
from = ["boards", "broker"]
subscribe = ["dt/{board}/temp", "dt/all"]
publish = ["agg/#", "log/mean"]
to = ["cloud", "stream:readings"]
"""


def check(text: str) -> Config:
    return parse_config(GATEWAY + text, "/etc/edgeloop/gateway.toml")


def changed(**fields: str) -> str:
    """A function with these fields as TOML values; `_` in a name stands for nothing, `-` as value removes it."""
    rows = {"name": '"mean"', "file": '"mean.py"', **fields}
    return "[[function]]\n" + "".join(f"{name.rstrip('_')} = {value}\n" for name, value in rows.items() if value != "-")


def test_a_function_is_understood_with_paths_relative_to_the_file() -> None:
    text = changed(
        requirements='"req.txt"', read='["/srv/maps", "maps"]', write='["out"]', secrets='{ key = "secrets/key" }'
    )
    (one,) = check(text).functions
    assert (one.file, one.requirements) == ("/etc/edgeloop/mean.py", "/etc/edgeloop/req.txt")
    assert (one.read, one.write) == (("/srv/maps", "/etc/edgeloop/maps"), ("/etc/edgeloop/out",))
    assert one.secrets == {"key": "/etc/edgeloop/secrets/key"}
    assert (one.subscribe, one.publish, one.network, one.dead_letter) == ((), (), False, "dead-letter")
    (program,) = check(changed(file="-", exec_='["./bin/count", "-v"]')).functions
    assert program.exec == ("./bin/count", "-v")


def test_from_and_subscribe_make_the_routes_in_and_publish_and_to_those_out() -> None:
    config = check(FUNCTION.replace('"boards", "broker"', '"boards"'))
    assert [(route.source, route.topic, route.to) for route in config.all_routes] == [
        ("boards", "dt/{board}/temp", ("function:mean",)),
        ("boards", "dt/all", ("function:mean",)),
        ("function:mean", "agg/#", ("cloud", "stream:readings")),
        ("function:mean", "log/mean", ("cloud", "stream:readings")),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0.0), ("250 ms", 0.25), ("10 s", 10), ("5 min", 300), ("1 h", 3600)]
)
def test_a_schedule_is_said_with_its_unit(text: str, seconds: float) -> None:
    (one,) = check(changed(handler='"run"', every=f'"{text}"')).functions
    assert one.every_s == seconds


def test_functions_may_stand_wherever_a_source_or_a_target_may() -> None:
    config = check(
        FUNCTION.replace('"boards", "broker"', '"rule:cold"').replace("{board}", "+")
        + '[[stream]]\nname = "late"\nfrom = ["function:mean"]\n'
        + changed(name='"next"', from_='["function:mean"]', subscribe='["agg/#", "x/+", "rule/warm"]')
        + '[[route]]\nfrom = "broker"\ntopic = "x/#"\nto = ["function:next"]\n'
        + '[[route]]\nfrom = "function:next"\ntopic = "out/#"\nto = ["boards"]\n'
        + '[[rule]]\nname = "warm"\nsql = "SELECT c FROM \'a/+\'"\nfrom = ["function:mean"]\nto = ["function:next"]\n'
    )
    made = [(route.source, route.topic, route.to) for route in config.all_routes]
    assert ("rule:cold", "dt/all", ("function:mean",)) in made
    assert ("function:mean", "agg/#", ("function:next",)) in made


@pytest.mark.parametrize(
    "taken",
    [
        '[[route]]\nfrom = "function:mean"\ntopic = "agg/#"\nto = ["cloud"]\n',
        '[[stream]]\nname = "late"\nfrom = ["function:mean"]\n',
        '[[rule]]\nname = "warm"\nsql = "SELECT c FROM \'a/+\'"\nfrom = ["function:mean"]\nto = ["cloud"]\n',
        changed(name='"next"', from_='["function:mean"]', subscribe='["agg/#"]'),
    ],
)
def test_what_a_function_publishes_may_be_taken_by_others_than_its_to(taken: str) -> None:
    assert check(changed(publish='["agg/#"]') + taken).functions[0].to == ()


def test_the_grant_of_a_shadow_needs_no_to() -> None:
    assert check(changed(publish='["$aws/things/g/shadow/#"]')).functions[0].to == ()


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        (changed(name='"Mean"'), "function[1].name", "matching regex"),
        (changed() + changed(), "function[2].name", "'mean' is another's"),
        (changed(file="-"), "function[1].file", "is missing"),
        (changed(exec_='["./x"]'), "function[1].file", "stands beside exec"),
        (changed(file="-", exec_='[""]'), "function[1].exec", "names no program"),
        (changed(file="-", exec_='["./x"]', handler='"run"'), "function[1].handler", "stands beside exec"),
        (changed(file="-", exec_='["./x"]', requirements='"r"'), "function[1].requirements", "stands beside exec"),
        (changed(handler='"a b"'), "function[1].handler", "matching regex"),
        (changed(every='"10 s"'), "function[1].every", "stands without handler"),
        (changed(handler='"run"', every='"10 days"'), "function[1].every", "matching regex"),
        (changed(handler='"run"', every='"0 s"'), "function[1].every", "is no time"),
        (changed(from_='["boards"]'), "function[1].subscribe", "is empty beside from"),
        (changed(subscribe='["dt/#"]'), "function[1].from", "is empty beside subscribe"),
        (changed(to='["cloud"]'), "function[1].publish", "is empty beside to"),
        (changed(from_='["boards"]', subscribe='["dt/#/x"]'), "function[1].subscribe", "'#' stands alone"),
        (changed(publish='["a+"]'), "function[1].publish", "'+' fills"),
        (changed(from_='["bords"]', subscribe='["dt/#"]'), "function[1].from", "nowhere in this file. Did you mean"),
        (changed(publish='["a"]', to='["stream:x"]'), "function[1].to", "nowhere in this file"),
        (changed(publish='["a"]', to='["rule:cold"]'), "function[1].to", "nowhere in this file"),
        (changed(publish='["a"]', to='["function:mean"]'), "function[1].to", "names the function itself"),
        (changed(publish='["agg/#"]'), "function[1].to", "nothing else takes what it publishes"),
        (
            changed(publish='["$aws/things/g/shadow/get", "a"]'),
            "function[1].to",
            'Name who gets it, such as to = ["cloud"',
        ),
        (changed(from_='["cloud"]', subscribe='["cmd/{board}"]'), "function[1].subscribe", "holds {board}"),
        (changed(max_delay_s="0.5"), "function[1].max_delay_s", "is below interval_s"),
        (changed(environment='{ LD_PRELOAD = "x" }'), "function[1].environment", "holds LD_PRELOAD"),
        (changed(environment='{ "a b" = "x" }'), "function[1].environment", "matching regex"),
        (changed(bytes_max="1000"), "function[1].bytes_max", ">= 2097152"),
        (changed(when_full='"thin"'), "function[1].when_full", "thin"),
        (changed(memory_bytes="1"), "function[1].memory_bytes", "not a known field. Did you mean"),
        ("[function]\nname = 'x'\n", "function", "is one table"),
    ],
)
def test_a_wrong_function_is_refused_with_field_and_fix(text: str, field: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_what_must_hold_a_function_is_named_as_edge_function_show_names_it() -> None:
    (one,) = check(changed(demand='["memory", "processes", "network", "files", "user", "end"]')).functions
    assert one.demand == ("memory", "processes", "network", "files", "user", "end")
    with pytest.raises(ConfigError) as caught:
        check(changed(demand='["memory", "ram"]'))
    assert caught.value.field == "function[1].demand"
    assert "'ram' is nothing that could hold it. Known are memory, processes, file_size" in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "field", "value"),
    [("network", "network", "true"), ("file_size", "file_bytes_max", "0"), ("cpu", "cpu_percent_max", "0")],
)
def test_what_the_file_does_not_limit_cannot_be_demanded(limit: str, field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{limit} beside {field} = {value}") as caught:
        check(changed(demand=f'["{limit}"]', **{field: value}))
    assert caught.value.field == "function[1].demand"


LOOPS = [
    changed(from_='["cloud"]', subscribe='["a/#"]', publish='["a/b"]', to='["cloud"]'),
    changed(from_='["cloud"]', subscribe='["a/#"]', publish='["a/b"]', to='["stream:readings"]'),
    changed(from_='["function:other"]', subscribe='["b/#"]', publish='["a/b"]')
    + changed(name='"other"', from_='["function:mean"]', subscribe='["a/#"]', publish='["b/+"]'),
    changed(from_='["boards"]', subscribe='["b/#"]', publish='["a/b"]', to='["function:other"]')
    + changed(name='"other"', from_='["broker"]', subscribe='["a/#"]', publish='["b/+"]', to='["function:mean"]'),
    changed(publish='["a/b"]')
    + '[[route]]\nfrom = "function:mean"\ntopic = "a/+"\nto = ["broker"]\n'
    + changed(name='"other"', from_='["broker"]', subscribe='["a/+"]', publish='["b/+"]', to='["cloud"]')
    + changed(name='"third"', from_='["cloud"]', subscribe='["b/+"]', publish='["a/c"]', to='["broker"]'),
]


@pytest.mark.parametrize("text", LOOPS)
def test_functions_that_feed_themselves_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"comes back to .* by .* Use topics that do not overlap"):
        check(text)


def test_a_loop_of_two_functions_names_the_field_that_closes_it() -> None:
    with pytest.raises(ConfigError) as caught:
        check(LOOPS[2])
    assert caught.value.field == "function[2].publish"
    way = "function:mean gives 'a/b' to function:other, function:other gives 'b/+' to function:mean"
    assert f"'b/+' comes back to function:mean by 'b/#': {way}" in str(caught.value)


NDJSON = '[[stream]]\nname = "s"\nformat = "ndjson"\n'
LOOPS_BY_OTHER_WAYS = [
    (
        '[[route]]\nfrom = "cloud"\ntopic = "out/#"\nto = ["function:mean"]\n'
        + changed(subscribe='["out/#"]', publish='["out/#"]', to='["cloud"]'),
        "function[1].publish",
        "'out/#' comes back to it by 'out/#'",
    ),
    (
        changed(subscribe='["a/+"]', publish='["b/x"]', to='["function:next"]')
        + changed(name='"next"', subscribe='["b/#"]', publish='["a/#"]', to='["function:mean"]'),
        "function[2].publish",
        "function:mean gives 'b/x' to function:next, function:next gives 'a/#' to function:mean",
    ),
    (
        NDJSON + changed(from_='["cloud"]', subscribe='["batch/#"]', publish='["x"]', to='["stream:s"]'),
        "stream[2].batch_topic",
        "function:mean gives 'x' to stream:s, stream:s gives 'batch/cellar/s' to function:mean",
    ),
    (
        NDJSON
        + '[[route]]\nfrom = "broker"\ntopic = "a/#"\nto = ["stream:s"]\n'
        + '[[route]]\nfrom = "cloud"\ntopic = "batch/#"\nto = ["stream:t"]\n'
        + NDJSON.replace('"s"', '"t"')
        + 'export = "broker"\nbatch_topic = "a/t"\n',
        "stream[3].batch_topic",
        "stream:s gives 'batch/cellar/s' to stream:t, stream:t gives 'a/t' to stream:s",
    ),
    (
        '[[stream]]\nname = "dead-letter"\n' + changed(from_='["cloud"]', subscribe='["dead-letter/#"]'),
        "function[1].dead_letter",
        "'dead-letter/mean/dead-letter/#' comes back to it by 'dead-letter/#'",
    ),
    (
        '[[stream]]\nname = "dead-letter"\nformat = "cbor"\n' + changed(from_='["cloud"]', subscribe='["batch/#"]'),
        "stream[2].batch_topic",
        "stream:dead-letter gives 'batch/cellar/dead-letter' to function:mean",
    ),
    (
        changed(invoke='["next"]') + changed(name='"next"', invoke='["mean"]'),
        "function[2].invoke",
        "the call of function:mean comes back to it: "
        "function:mean invokes function:next, function:next invokes function:mean. Let calls go one way",
    ),
    (
        changed(from_='["cloud"]', subscribe='["a"]', invoke='["next"]')
        + changed(name='"next"', publish='["a"]', to='["cloud"]'),
        "function[2].publish",
        "function:mean invokes function:next, function:next gives 'a' to function:mean",
    ),
    (
        '[[route]]\nfrom = "cloud"\ntopic = "a/#"\nto = ["broker"]\n'
        + changed(from_='["broker"]', subscribe='["a/x"]', publish='["a/+"]', to='["cloud"]'),
        "function[1].publish",
        "'a/+' comes back to it by 'a/x'",
    ),
]


@pytest.mark.parametrize(("text", "field", "way"), LOOPS_BY_OTHER_WAYS)
def test_a_loop_by_routes_targets_batches_letters_or_calls_is_refused_with_its_way(
    text: str, field: str, way: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert way in str(caught.value)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    [
        '[[route]]\nfrom = "cloud"\ntopic = "in/#"\nto = ["function:mean"]\n'
        + changed(subscribe='["in/#"]', publish='["out/#"]', to='["cloud"]'),
        # The route brings more than it subscribes to, and what it publishes is among that alone.
        '[[route]]\nfrom = "cloud"\ntopic = "a/#"\nto = ["function:mean"]\n'
        + changed(subscribe='["a/in"]', publish='["a/out"]', to='["cloud"]'),
        # It subscribes to more than the route brings.
        '[[route]]\nfrom = "cloud"\ntopic = "a/in"\nto = ["function:mean"]\n'
        + changed(subscribe='["a/#"]', publish='["a/out"]', to='["cloud"]'),
        NDJSON + changed(from_='["cloud"]', subscribe='["cmd/#"]', publish='["batch/x"]', to='["stream:s"]'),
        # Who looks after the letters of others fails at none of his own that he gets.
        '[[stream]]\nname = "dead-letter"\n'
        + changed(from_='["cloud"]', subscribe='["dead-letter/next/#"]')
        + changed(name='"next"', from_='["boards"]', subscribe='["dt/#"]'),
        # Letters that stay here.
        changed(from_='["cloud"]', subscribe='["dead-letter/#"]'),
        changed(invoke='["next", "last"]') + changed(name='"next"', invoke='["last"]') + changed(name='"last"'),
        changed(subscribe='["a/+"]', publish='["b/x"]', to='["function:next"]')
        + changed(name='"next"', from_='["boards"]', subscribe='["b/#", "a/+"]', publish='["c/#"]')
        + '[[route]]\nfrom = "function:next"\ntopic = "c/#"\nto = ["cloud"]\n'
        + '[[route]]\nfrom = "boards"\ntopic = "a/#"\nto = ["function:mean"]\n',
    ],
)
def test_what_only_looks_like_a_loop_is_taken(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        (
            '[[route]]\nfrom = "cloud"\ntopic = "ask/#"\nto = ["function:mean"]\n' + changed(),
            "route[1].to",
            "names 'function:mean', which subscribes to nothing: it would get none of 'ask/#'. "
            "Add such a topic to `subscribe` of 'mean'",
        ),
        (
            '[[route]]\nfrom = "boards"\ntopic = "dt/{board}/#"\nto = ["function:mean"]\n'
            + changed(subscribe='["cmd/{board}", "dt/a"]'),
            "",
            "",
        ),
        (
            '[[rule]]\nname = "warm"\nsql = "SELECT c FROM \'a/+\'"\ntopic = "w/${b}"\nto = ["function:mean"]\n'
            + changed(subscribe='["warm/+", "w/+/+"]'),
            "rule[2].to",
            "which subscribes to 'warm/+', 'w/+/+' alone: it would get none of 'w/+'",
        ),
        (
            changed(publish='["b/#"]', to='["function:next"]')
            + changed(name='"next"', from_='["boards"]', subscribe='["c/#"]'),
            "function[1].to",
            "names 'function:next', which subscribes to 'c/#' alone",
        ),
        (changed(subscribe='["a"]'), "function[1].from", "is empty beside subscribe, and nothing else sends it"),
        (changed(invoke='["next"]'), "function[1].invoke", "'next' is nowhere in this file"),
        (changed(invoke='["mean"]'), "function[1].invoke", "names the function itself"),
    ],
)
def test_a_target_that_gets_nothing_of_it_is_refused(text: str, field: str, problem: str) -> None:
    if not field:
        check(text)
        return
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert problem in str(caught.value)
    assert caught.value.field == field


def test_functions_whose_topics_do_not_meet_are_no_loop() -> None:
    check(changed(from_='["cloud"]', subscribe='["a/#"]', publish='["b/#"]', to='["cloud"]'))
    check(changed(from_='["boards"]', subscribe='["a/#"]', publish='["a/#"]', to='["cloud"]'))
