"""The pure parts of a function's pool, one by one."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config_functions import FunctionSettings
from edge.errors import ConfigError
from edge.functions.backoff import Backoff
from edge.functions.calls import Job
from edge.functions.crew import Version
from edge.functions.figures import Figures
from edge.functions.grants import Denial, Grants, Handled
from edge.functions.letters import dead_letter
from edge.functions.output import LINE_BYTES_MAX, LINES_BURST, Output
from edge.functions.publishes import HELD_MAX, Publishes
from edge.functions.schedules import Schedules
from edge.functions.slot import Slot, State
from edge.functions.versions import CodeError, check_files, forget_others, signature, take_over
from edge.functions.wire import Ready
from edge.messages import Message, Outcome
from edge.metrics import Metrics

# -- Backoff


def test_a_worker_that_did_nothing_is_started_again_ever_more_seldom() -> None:
    backoff = Backoff()
    waits = [backoff.ended(100.0, lived_s=0.1, did_something=False) for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff.until == 160.0
    backoff.worked()
    assert backoff.ended(200.0, lived_s=0.1, did_something=False) == 1


def test_a_worker_that_lived_long_is_replaced_at_once_and_one_that_did_not_waits_a_second() -> None:
    assert Backoff().ended(0.0, lived_s=10.0, did_something=True) == 0
    assert Backoff().ended(0.0, lived_s=9.0, did_something=True) == 1


# -- Output


@given(st.lists(st.binary(max_size=40)), st.integers(1, 7))
def test_lines_come_out_as_they_went_in_however_they_are_cut(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines][: int(LINES_BURST)]
    data = b"".join(line + b"\n" for line in lines)
    output = Output(0.0)
    found = [line for at in range(0, len(data), size) for line in output.feed(data[at : at + size], 0.0)]
    assert found == [line.decode("utf-8", "replace") for line in lines]


@pytest.mark.parametrize("size", [100, 5000, 1_000_000])
def test_a_line_without_end_is_told_once_and_bounded(size: int) -> None:
    output = Output(0.0)
    data = b"x" * 1_000_000 + b"\nnext\n"
    found = [line for at in range(0, len(data), size) for line in output.feed(data[at : at + size], 0.0)]
    assert found == ["x" * LINE_BYTES_MAX + " …", "next"]


def test_beyond_the_rate_lines_are_dropped_and_counted() -> None:
    output = Output(0.0)
    assert len(output.feed(b"x\n" * 1000, 0.0)) == LINES_BURST
    assert output.take_dropped() == 1000 - LINES_BURST
    assert output.take_dropped() == 0
    assert len(output.feed(b"x\n" * 1000, 1.0)) == 20


def test_what_is_left_without_an_end_is_a_line_too() -> None:
    output = Output(0.0)
    assert output.feed(b"last", 0.0) == []
    assert output.finish() == ["last"]


# -- Schedules


def test_a_schedule_counts_from_when_it_was_due_and_makes_up_nothing() -> None:
    schedules = Schedules()
    schedules.learn([(3, 10.0)], 100.0)
    assert schedules.next_due() == 110.0
    assert schedules.due(109.9) == []
    assert schedules.due(111.0) == [3]
    assert schedules.next_due() == 120.0
    assert schedules.due(500.0) == [3]
    assert schedules.next_due() == 510.0


def test_a_schedule_that_stays_keeps_its_time_when_the_code_changes() -> None:
    schedules = Schedules()
    schedules.learn([(0, 10.0), (1, 60.0)], 0.0)
    schedules.learn([(0, 10.0), (1, 30.0), (2, 5.0)], 7.0)
    assert [schedules.due(when) for when in (10.0, 12.0, 37.0)] == [[0], [2], [0, 1, 2]]
    schedules.learn([], 40.0)
    assert schedules.next_due() is None


def test_the_schedule_of_the_gateway_file_stands_alone() -> None:
    schedules = Schedules()
    schedules.configure(10.0, 0.0)
    schedules.learn([(5, 1.0)], 0.0)
    assert schedules.due(10.0) == [0]
    schedules.configure(0.0, 10.0)
    assert schedules.next_due() is None


# -- Grants


def test_a_topic_that_a_broker_would_hang_up_on_is_denied_with_its_bound() -> None:
    grants = Grants(("out/#",))
    grants.may_publish("out" + "/x" * 127)
    with pytest.raises(Denial, match="has 129 levels, at most 128") as denied:
        grants.may_publish("out" + "/x" * 128)
    assert denied.value.reason == "invalid_topic"


def test_only_what_is_granted_may_be_published() -> None:
    grants = Grants(("out/+", "all/#"))
    for topic in ("out/x", "all", "all/x/y"):
        grants.check(topic, b"")
        grants.check(topic, b"")
    for topic, reason in (("out", "denied"), ("out/x/y", "denied"), ("out/+", "invalid_topic"), ("", "invalid_topic")):
        with pytest.raises(Denial) as caught:
            grants.check(topic, b"")
        assert caught.value.reason == reason
    with pytest.raises(Denial, match="at most"):
        grants.check("out/x", bytes(128 * 1024 + 1))


def test_without_filters_code_takes_all_topics() -> None:
    assert "x" in Handled(None)
    assert "a/b" in Handled(("a/+",))
    assert "b" not in Handled(("a/+",))


# -- Letters


def test_a_dead_letter_is_bounded() -> None:
    letter = dead_letter("f", Message("t" * 60_000, bytes(128 * 1024), time_ms=5), "E" * 10_000, 3, None)
    assert len(letter.payload) + len(letter.topic) < 128 * 1024
    told: dict[str, Any] = msgspec.json.decode(letter.payload)
    assert (told["cut"], told["attempts"], told["time_ms"]) == (True, 3, 5)


# -- Publishes


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.routed: list[list[bytes]] = []
        self.settled: list[Job] = []
        self.answer: Outcome | None = None
        self.publishes = Publishes(self._route, self.settled.append, lambda: self.now, lambda: None)

    def _route(self, messages: Any, origin: Publishes) -> None:
        self.routed.append([message.payload for message in messages])
        self.last = [message.receipt for message in messages]
        if self.answer is not None:
            origin.settled(self.last, self.answer)

    def add(self, *payloads: bytes, job: Job | None = None) -> None:
        for payload in payloads:
            self.publishes.add(Message("t", payload, 1), job)
        self.publishes.flush()


def test_a_job_is_settled_when_the_last_of_its_publishes_is() -> None:
    rig = Rig()
    job = Job("t", Message("t", b""), 1)
    rig.add(b"1", b"2", job=job)
    first, second = rig.last
    rig.publishes.settled([first], Outcome.TAKEN)
    assert not rig.settled
    rig.publishes.settled([second], Outcome.REFUSED)
    assert rig.settled == [job]
    rig.publishes.settled([second], Outcome.TAKEN)
    assert rig.settled == [job]
    assert not rig.publishes.under_way


def test_what_found_no_room_is_offered_again_before_what_came_after_it_with_growing_waits() -> None:
    rig = Rig()
    rig.answer = Outcome.CONGESTED
    rig.add(b"1", b"2")
    rig.add(b"3")
    assert rig.routed == [[b"1", b"2"]]
    waits = []
    for _ in range(10):
        waits.append(rig.publishes.again_at - rig.now)
        rig.now = rig.publishes.again_at
        rig.publishes.offer_again()
    assert waits[:3] == pytest.approx([0.05, 0.1, 0.2])
    assert waits[-1] == 5.0
    rig.answer = Outcome.TAKEN
    rig.publishes.offer_again()
    assert rig.routed[-1] == [b"1", b"2", b"3"]
    assert not rig.publishes.under_way


def test_publishes_are_full_at_their_bound() -> None:
    rig = Rig()
    rig.add(*[b"x"] * (HELD_MAX - 1))
    assert not rig.publishes.is_full
    rig.add(b"x")
    assert rig.publishes.is_full
    large = Rig()
    large.add(bytes(4 * 1024 * 1024))
    assert large.publishes.is_full


# -- Slot


def ready_slot(*, concurrent: bool = False, is_program: bool = False) -> Slot:
    slot = Slot(1, 1, 0.0, timeout_s=10.0, start_timeout_s=60.0, is_program=is_program)
    slot.state, slot.ready = State.READY, Ready(takes_all=True, concurrent=concurrent)
    return slot


def test_a_worker_that_starts_has_until_its_start_timeout() -> None:
    assert Slot(1, 1, 5.0, timeout_s=10.0, start_timeout_s=60.0, is_program=False).deadline == 65.0


def test_a_deadline_is_that_of_the_call_under_way() -> None:
    slot = ready_slot()
    jobs = [Job(f"{number}", Message("t", b""), number) for number in range(3)]
    for id_, job in enumerate(jobs):
        slot.give(id_, job, 100.0)
    assert slot.deadline == 110.0
    assert slot.answered(0, 107.0) == (jobs[0], 7.0)
    assert slot.deadline == 117.0
    assert slot.answered(2, 108.0) is None  # out of order
    assert slot.answered(9, 108.0) is None
    assert slot.split() == ([jobs[1]], [jobs[2]])


def test_a_concurrent_worker_has_begun_all_it_was_given_and_keeps_deadlines_itself() -> None:
    slot = ready_slot(concurrent=True)
    jobs = [Job(f"{number}", Message("t", b""), number) for number in range(3)]
    for id_, job in enumerate(jobs):
        slot.give(id_, job, 100.0 + id_)
    assert slot.deadline == 111.0
    assert slot.answered(2, 103.0) == (jobs[2], 1.0)
    assert slot.split() == (jobs[:2], [])


def concurrent_slot(count: int) -> tuple[Slot, list[Job]]:
    slot = ready_slot(concurrent=True)
    jobs = [Job(f"{number}", Message("t", b""), number) for number in range(1, count + 1)]
    for id_, job in enumerate(jobs, 1):
        slot.give(id_, job, 100.0)
    return slot, jobs


def test_a_call_that_waits_in_a_concurrent_worker_has_its_time_from_when_it_begins() -> None:
    slot, jobs = concurrent_slot(4)
    assert slot.begun(1, 0.0, 100.0)
    assert slot.deadline == 111.0
    assert slot.answered(1, 109.0) == (jobs[0], 9.0)
    assert slot.deadline == 120.0, "the next one is under way, or never will be"
    assert slot.begun(2, 0.5, 109.5)
    assert (slot.left_s(2, 110.0), slot.deadline) == (9.0, 120.0)
    assert slot.answered(2, 118.0) == (jobs[1], 9.0)
    assert slot.begun(3, 0.0, 118.0)
    assert slot.deadline == 129.0, "of one that has begun, whatever else is answered"
    assert slot.answered(4, 128.0) is not None
    assert slot.deadline == 129.0


def test_a_concurrent_worker_that_begins_others_and_never_one_is_ended() -> None:
    slot, _ = concurrent_slot(3)
    assert slot.answered(2, 109.0) is not None
    assert slot.begun(3, 0.0, 110.0)
    assert slot.answered(3, 110.5) is not None
    assert slot.deadline == 111.0


def test_a_call_begins_once_and_is_one_that_was_given() -> None:
    slot, _ = concurrent_slot(1)
    assert slot.begun(1, 50.0, 101.0)
    assert slot.deadline == 111.0, "not before it was given"
    assert not slot.begun(1, 0.0, 102.0)
    assert not slot.begun(2, 0.0, 102.0)


def test_how_much_a_worker_may_be_given() -> None:
    assert ready_slot().room(alone=False, only=True) == 9
    assert ready_slot().room(alone=False, only=False) == 2
    assert ready_slot(is_program=True).room(alone=False, only=True) == 1
    assert ready_slot(concurrent=True).room(alone=False, only=True) == 64
    for took, room in ((0.0001, 65), (0.005, 5), (3.0, 2)):
        slot = ready_slot()
        slot.give(1, Job("t", Message("t", b""), 1), 0.0)
        slot.answered(1, took)
        assert slot.room(alone=False, only=True) == room
    slot = ready_slot(concurrent=True)
    job = Job("t", Message("t", b""), 1)
    job.alone = True
    assert slot.room(alone=True, only=True) == 1
    slot.give(1, job, 0.0)
    assert slot.room(alone=False, only=True) == 0
    slot.answered(1, 1.0)
    slot.state = State.LEAVING
    assert slot.room(alone=False, only=True) == 0


# -- Figures


def test_percentiles_are_of_the_last_calls() -> None:
    figures = Figures(Metrics(), "f")
    assert figures.percentile_ms(0.5) is None
    for number in range(3000):
        figures.took(number / 1000)
    assert figures.percentile_ms(0.5) == pytest.approx(2488, abs=2)
    assert figures.percentile_ms(0.99) == pytest.approx(2989, abs=2)


# -- Versions


def settings_of(file: Path, **more: Any) -> FunctionSettings:
    return msgspec.convert({"name": "f", "file": str(file), **more}, FunctionSettings)


def test_a_folder_is_copied_as_it_is_and_anew_when_it_changes(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "sub/__pycache__").mkdir(parents=True)
    (code / "main.py").write_text("1")
    (code / "sub/data.txt").write_text("2")
    (code / "sub/__pycache__/x.pyc").write_text("3")
    settings = settings_of(code, handler="main.run")
    seen = signature(settings)
    first, digest = take_over(settings, f"{tmp_path}/own/f")
    assert sorted(str(path.relative_to(first.code)) for path in Path(first.code).rglob("*.*")) == [
        "main.py", "sub/data.txt",
    ]  # fmt: skip
    assert take_over(settings, f"{tmp_path}/own/f") == (first, digest)
    (code / "sub/data.txt").write_text("22")
    assert signature(settings) != seen
    second, other = take_over(settings, f"{tmp_path}/own/f")
    assert other != digest
    assert (Path(first.code) / "sub/data.txt").read_text() == "2"
    assert (Path(second.code) / "sub/data.txt").read_text() == "22"
    forget_others(f"{tmp_path}/own/f", [Version(2, second, other)])
    assert not Path(first.code).exists()


def program(*exec_: str) -> FunctionSettings:
    return msgspec.convert({"name": "f", "exec": exec_}, FunctionSettings)


def test_a_program_and_the_files_among_its_arguments_are_copied_and_watched(tmp_path: Path) -> None:
    base, own = tmp_path / "beside", f"{tmp_path}/own/f"
    (base / "functions").mkdir(parents=True)
    (base / "functions/x.sh").write_text("1")
    (base / "functions/run").write_text("2")
    (base / "functions/run").chmod(0o755)
    (tmp_path / "up.awk").write_text("3")
    settings = program("sh", "functions/x.sh", "-v", "../up.awk", "functions", "/etc/passwd")
    seen = signature(settings, f"{base}")
    launch, digest = take_over(settings, own, f"{base}")
    copies = f"{own}/code/{digest}"
    assert (launch.code, launch.argv) == (
        copies,
        ("sh", f"{copies}/functions/x.sh", "-v", f"{copies}/up/up.awk", "functions", "/etc/passwd"),
    )
    assert sorted(str(one.relative_to(copies)) for one in Path(copies).rglob("*.*")) == ["functions/x.sh", "up/up.awk"]
    (base / "functions/x.sh").write_text("changed")
    assert signature(settings, f"{base}") != seen
    assert take_over(settings, own, f"{base}")[1] != digest
    assert Path(launch.argv[1]).read_text() == "1"  # what runs can run again
    launch, digest = take_over(program("./functions/run", "x"), own, f"{base}")
    assert launch.argv == (f"{own}/code/{digest}/functions/run", "x")
    assert os.access(launch.argv[0], os.X_OK)
    assert take_over(program("/bin/sh", "-c", "true"), own, f"{base}")[0].argv == ("/bin/sh", "-c", "true")


@pytest.mark.parametrize(
    ("exec_", "problem"),
    [
        (("pyhton3", "x.py"), "there is no program 'pyhton3' in /usr/local/bin:/usr/bin:/bin"),
        (("x.py",), "there is no program 'x.py' in .*; for the file beside the gateway file write './x.py'"),
        (("./none",), "/none: No such file"),
        (("/none",), "/none: No such file"),
        (("./x.py",), r"/x.py: it may not be run as a program \(chmod \+x\)"),
    ],
)
def test_a_program_that_is_not_there_is_refused(tmp_path: Path, exec_: tuple[str, ...], problem: str) -> None:
    (tmp_path / "x.py").write_text("")
    with pytest.raises(ConfigError, match=rf"function\[1\]: .*{problem}"):
        check_files("gateway.toml", [program(*exec_)], f"{tmp_path}")
    with pytest.raises(CodeError, match=problem):
        take_over(program(*exec_), f"{tmp_path}/own/f", f"{tmp_path}")


def test_files_that_are_not_there_are_told_with_their_path(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "none.py")
    with pytest.raises(CodeError, match=r"none\.py: No such file"):
        take_over(settings, f"{tmp_path}/own/f")
    with pytest.raises(ConfigError, match=r"function\[1\]: .*none\.py: No such file"):
        check_files("gateway.toml", [settings])
    assert signature(settings) == ()
