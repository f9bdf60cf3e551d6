"""A crew of one real program, with the test in the place of the pool."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from edge.config_functions import FunctionSettings
from edge.functions.child import READ_BYTES, Launch
from edge.functions.crew import Crew, Version
from edge.functions.figures import Figures
from edge.functions.lines import Lines
from edge.functions.processes import Processes
from edge.functions.sandbox import Ending
from edge.functions.slot import ASIDES_BURST, Slot
from edge.functions.surroundings import Surroundings
from edge.functions.wire import Call, Done, FromWorker, Ready
from edge.metrics import Metrics
from tests.functions.gateway import open_folder


class Team:
    """What came of the program. tried: what the kernel refused it."""

    def __init__(self) -> None:
        self.said: list[FromWorker] = []
        self.printed_bytes = 0
        self.endings: list[Ending] = []
        self.attempts: list[tuple[str, str]] = []
        self.slot: Slot | None = None
        self.lines = Lines("f", Figures(Metrics(), "f"))

    def received(self, slot: Slot, frames: list[FromWorker]) -> None:
        self.said += frames

    def printed(self, slot: Slot, pipe: str, data: bytes) -> None:
        self.printed_bytes += len(data)
        self.lines.printed(slot, "stdout" if pipe == "stdout" else "stderr", data, 0.0)

    def tried(self, slot: Slot, what: str, detail: str) -> None:
        self.attempts.append((what, detail))

    def lost(self, slot: Slot, ending: Ending) -> None:
        self.endings.append(ending)

    def changed(self) -> None:
        """It is looked at as often as need be."""

    def is_ready(self, slot: Slot, ready: Ready) -> None:
        self.slot = slot


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def lived(
    script: str, test: Callable[[Crew, Team], Awaitable[None]], *, now: Callable[[], float] | None = None
) -> Team:
    """A shell script as an exec function, from its start to its end."""

    async def run() -> Team:
        team = Team()
        with open_folder() as place:
            program = Path(place) / "program.sh"
            program.write_text(f"#!/bin/sh\n{script}")
            program.chmod(0o755)
            settings = FunctionSettings(name="f", exec=(str(program),))
            async with asyncio.TaskGroup() as group:
                processes = Processes(group.create_task, "g")
                clock = now or asyncio.get_running_loop().time
                around = Surroundings(
                    "g", processes, group.create_task, lambda *one: None, lambda *one: None, Metrics(), clock
                )
                crew = Crew(Version(1, Launch(settings, "", f"{place}/f", argv=settings.exec)), around, team)
                crew.want = 1
                crew.look()
                await test(crew, team)
                crew.kill()
                await until(lambda: not crew.slots)
            processes.close()
        return team

    return asyncio.run(run())


def test_a_program_that_ends_by_itself_is_told_with_the_last_it_said() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: bool(team.endings))

    team = lived("echo begun >&2\necho >&2\necho 'no sensor' >&2\nexit 4\n", test)
    assert team.endings[0].detail == "exit status 4; last on its stderr: begun | no sensor"


def test_one_that_the_gateway_ends_is_told_without() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: team.slot is not None and bool(team.slot.last_words))

    team = lived("echo begun >&2\nread -r line\n", test)
    assert [ending.detail for ending in team.endings] == ["ended by the gateway"]


def test_endless_lines_on_stdout_are_read_no_faster_than_is_allowed() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: team.printed_bytes > ASIDES_BURST * 1024)
        await asyncio.sleep(0.5)

    team = lived("exec yes endless\n", test, now=lambda: 0.0)
    assert team.printed_bytes < ASIDES_BURST * 1024 + (1 << 20), "and what its socket held at its end"


def test_an_answer_behind_much_output_comes_all_the_same() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: team.slot is not None)
        assert team.slot is not None
        crew.send(team.slot, Call(7, "t", b"1"))
        crew.flush(team.slot)
        await until(lambda: bool(team.said))

    size = int(ASIDES_BURST * 1024) + 8 * READ_BYTES // 16 * 16
    team = lived(f"read -r line\nyes endless7endless | head -c {size}\necho '{{\"id\":1}}'\nread -r line\n", test)
    assert team.said == [Done(7)]
    assert team.printed_bytes == size


def test_what_a_program_tries_is_heard_from_the_kernel() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: bool(team.attempts))

    code = 'use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or print STDERR "$!\\n"; <STDIN>'
    team = lived(f"exec perl -e '{code}'\n", test)
    assert team.attempts == [("network", "make a socket of AF_INET")]


def test_what_a_program_uses_without_a_call_is_known() -> None:
    async def test(crew: Crew, team: Team) -> None:
        await until(lambda: team.slot is not None)
        assert team.slot is not None
        child = team.slot.child
        assert child is not None
        await until(lambda: child.cpu_s > 0.2)

    lived("while :; do :; done\n", test)
