"""What a program may and may not do, as root and as an ordinary user, with all mechanisms and with some missing."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.functions.sandbox import Sandbox, number_of
from tests.functions.gateway import USERS, beats, begun, end_all_in, hold, open_folder
from tests.processes import until

pytestmark = pytest.mark.parametrize("user", USERS)

WITHOUT = {
    "all": frozenset[str](),
    "no_groups": frozenset({"groups"}),
    "no_namespaces": frozenset({"namespaces"}),
    "landlock_alone": frozenset({"groups", "namespaces", "seccomp"}),
    "nothing": frozenset({"groups", "namespaces", "seccomp", "landlock"}),
}
every_way = pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def sandbox(place: Path, **settings: object) -> Sandbox:
    return Sandbox(name=place.name, folder=f"{place}/work", **settings)  # type: ignore[arg-type]


@every_way
def test_a_program_runs_in_its_own_folder_and_may_write_there(user: str, place: Path, without: frozenset[str]) -> None:
    code = "import os; open('x', 'w').write('1'); print(os.getcwd(), os.listdir())"
    held = hold(sandbox(place, without=without), code, user=user)
    assert held.output.split() == [f"{place}/work", "['x']"]
    assert held.ending is not None
    assert (held.ending.reason, held.ending.code) == ("exited", 0)


@every_way
def test_its_exit_status_or_signal_is_told(user: str, place: Path, without: frozenset[str]) -> None:
    held = hold(sandbox(place, without=without), "import os; os._exit(7)", user=user)
    assert held.ending is not None
    assert (held.ending.reason, held.ending.code) == ("exited", 7)
    held = hold(sandbox(place, without=without), "import os; os.kill(os.getpid(), 9)", user=user)
    assert held.ending is not None
    assert (held.ending.reason, held.ending.code) == ("signal", 9)


@every_way
def test_a_signal_that_it_does_not_handle_ends_it(user: str, place: Path, without: frozenset[str]) -> None:
    held = hold(sandbox(place, without=without), "import os; os.kill(os.getpid(), 15)", user=user)
    assert held.ending is not None
    assert (held.ending.reason, held.ending.code) == ("signal", 15)


def test_the_first_process_of_its_namespace_is_held_as_it_is(user: str, place: Path) -> None:
    code = """
import os, time
def held(pid):
    rows = [row.split() for row in open(f'/proc/{pid}/status')]
    return [row for row in rows if row[0] in ('Uid:', 'Gid:', 'Groups:', 'CapEff:', 'NoNewPrivs:', 'Seccomp:')]
while os.getpid() == 2 and open('/proc/1/comm').read() != 'sleep\\n':
    time.sleep(0.01)
print(held('self') == held(1 if os.getpid() == 2 else 'self'))
"""
    assert hold(sandbox(place), code, user=user).output == "True\n"


@pytest.mark.parametrize("without", [WITHOUT["all"], WITHOUT["no_groups"]])
def test_orphans_that_have_ended_take_no_place_and_a_child_of_its_own_keeps_its_status(
    user: str, place: Path, without: frozenset[str]
) -> None:
    code = """
import os, subprocess
own = subprocess.Popen(["sh", "-c", "exit 7"])
for _ in range(30):
    read, end = os.pipe()
    subprocess.run(["sh", "-c", "true &"], pass_fds=[end], check=True)
    os.close(end)
    os.read(read, 1)  # the orphan has ended, or is about to
    os.close(read)
print(own.wait())
"""
    held = hold(sandbox(place, without=without, processes_max=8), code, user=user)
    assert (held.output, held.reason, held.reached) == ("7\n", "exited", {})


def test_its_environment_holds_nothing_of_the_gateways(user: str, place: Path) -> None:
    os.environ["EDGE_TEST_KEY"] = "secret"
    try:
        held = hold(sandbox(place), "import os; print(sorted(os.environ))", user=user, environment={"RATE": "5"})
    finally:
        del os.environ["EDGE_TEST_KEY"]
    assert held.output.strip() == "['HOME', 'LANG', 'PATH', 'RATE', 'TMPDIR']"


def test_it_has_no_descriptors_but_those_given(user: str, place: Path) -> None:
    code = """
import os
found = []
for fd in range(200):
    try: os.fstat(fd); found.append(fd)
    except OSError: pass
print(found, os.readlink('/proc/self/fd/0') if os.path.exists('/proc/self/fd') else '/dev/null')
"""
    assert hold(sandbox(place), code, user=user).output.strip() == "[0, 1, 2] /dev/null"


def test_as_root_it_runs_as_a_user_of_its_own_and_cannot_become_another(user: str, place: Path) -> None:
    code = """
import os
print(os.getuid(), os.getgid(), os.getgroups())
try: os.setuid(0); print('root')
except OSError: print("no")
"""
    held = hold(sandbox(place), code, user=user)
    if user == "root":
        number = number_of(place.name)
        assert held.output.split("\n")[:2] == [f"{number} {number} []", "no"]
        assert os.stat(place / "work").st_uid == number
    else:
        assert held.output.split("\n")[1] == "no"


@pytest.mark.parametrize("without", [WITHOUT["all"], WITHOUT["no_groups"], WITHOUT["no_namespaces"]])
def test_others_folders_and_keys_are_out_of_reach(user: str, place: Path, without: frozenset[str]) -> None:
    (place / "keys").mkdir()
    (place / "keys" / "gateway.key").write_text("secret")
    (place / "other").mkdir(mode=0o777)
    code = f"""
import os
for path in ('{place}/keys/gateway.key', '{place}/other/x', '/etc/hostname', '/home'):
    try: print(open(path, 'w' if path.endswith('x') else 'r').read() if path != '/home' else os.listdir(path))
    except OSError as error: print(type(error).__name__)
"""
    held = hold(sandbox(place, without=without), code, user=user)
    assert not held.holds("files") or set(held.output.split()) <= {"PermissionError", "FileNotFoundError"}


def test_granted_paths_can_be_read_or_written_and_hidden_ones_stay_hidden(user: str, place: Path) -> None:
    for name in ("in", "out"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    (place / "in" / "table.csv").write_text("1")
    (place / "in" / "keys").mkdir()
    (place / "in" / "keys" / "key").write_text("secret")
    code = f"""
import os
print(open('{place}/in/table.csv').read())
for path in ('{place}/in/new', '{place}/out/new'):
    try: open(path, 'w').write('2'); print('written')
    except OSError: print('refused')
print(os.path.exists('{place}/in/keys/key'))
"""
    grants = sandbox(place, read=(f"{place}/in",), write=(f"{place}/out",), hidden=(f"{place}/in/keys",))
    held = hold(grants, code, user=user)
    assert held.output.split()[:3] == ["1", "refused", "written"]
    assert held.output.split()[3] == "False" or "mount namespace" not in held.containment.limits["files"].by


def test_its_folder_may_stand_in_a_hidden_one_of_which_it_sees_nothing_else(user: str, place: Path) -> None:
    data = place / "data"
    (data / "streams").mkdir(parents=True)
    for folder in (place, data, data / "streams"):
        folder.chmod(0o777)
    (data / "lock").write_text("1")
    grants = Sandbox(name=place.name, folder=f"{data}/functions/mean/work", read=(f"{place}",), hidden=(f"{data}",))
    held = hold(grants, f"import os; print(os.listdir('{data}'), os.listdir('{data}/functions'))", user=user)
    assert held.output == "['functions'] ['mean']\n" or "mount namespace" not in held.containment.limits["files"].by


@pytest.mark.parametrize("without", [WITHOUT["all"], WITHOUT["no_namespaces"]])
def test_there_is_no_network_unless_granted(user: str, place: Path, without: frozenset[str]) -> None:
    code = """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        s = socket.socket(socket.AF_INET, kind); s.connect(('127.0.0.1', 9)); print('open')
    except ConnectionRefusedError: print('open')
    except OSError: print('closed')
print(len(socket.socketpair()))
"""
    code = f"import sys; sys.path.append('/usr/lib/python3/lib-dynload')\n{code}"
    held = hold(sandbox(place, without=without), code, user=user)
    assert not held.holds("network") or held.output.split() == ["closed", "closed", "2"]
    held = hold(sandbox(place, without=without, network=True), code, user=user)
    assert held.output.split() == ["open", "open", "2"]


@every_way
def test_killing_it_ends_grandchildren_that_ignore_signals_and_leave_home(
    user: str, place: Path, without: frozenset[str]
) -> None:
    mark = f"{place}/work/alive"
    code = f"""
import os, signal, time
for number in range(1, 65):
    if number not in (9, 19, 32, 33): signal.signal(number, signal.SIG_IGN)
for leave in (False, True):
    if os.fork() == 0:
        if leave:
            try: os.setsid()
            except PermissionError: pass
        if os.fork() == 0:
            while True:
                open(f'{mark}{{leave}}', 'w').write(str(time.monotonic())); time.sleep(0.02)
        os._exit(0)
while not (os.path.exists('{mark}True') and os.path.exists('{mark}False')): time.sleep(0.01)
print('on', flush=True)
time.sleep(50)
"""
    held = hold(sandbox(place, without=without), code, user=user, kill_at="on\n")
    assert held.reason == "killed"
    left = [leave for leave in (True, False) if beats(place / "work" / f"alive{leave}")]
    end_all_in(place)
    assert not left or not held.holds("end")


@every_way
def test_memory_beyond_the_limit_ends_it_or_is_refused(user: str, place: Path, without: frozenset[str]) -> None:
    code = (
        "x = [bytes(1 << 20) for _ in range(400)]; y = [bytearray(b'x') * (1 << 20) for _ in range(400)]; print(len(y))"
    )
    held = hold(sandbox(place, without=without), code, user=user)
    assert "400" not in held.output.split()
    assert held.reason == "memory" or "MemoryError" in held.output


@every_way
def test_memory_of_many_processes_is_summed(user: str, place: Path, without: frozenset[str]) -> None:
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = bytearray(b'x') * (20 << 20); time.sleep(20); os._exit(0)
time.sleep(20)
"""
    held = hold(sandbox(place, without=without), code, user=user)
    assert held.reason == "memory"


@every_way
def test_processes_are_bounded(user: str, place: Path, without: frozenset[str]) -> None:
    code = """
import os, time
made = 0
for _ in range(60):
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: time.sleep(20); os._exit(0)
    made += 1
print(made, 'made', flush=True); time.sleep(20)
"""
    held = hold(sandbox(place, without=without), code, user=user, kill_at="made")
    assert 1 <= int(held.output.split()[0]) <= 17


def test_files_and_their_number_and_cores_are_bounded(user: str, place: Path) -> None:
    code = """
import resource
try:
    with open('big', 'wb') as file: file.write(bytes(2 << 20))
except OSError as error: print(error.errno)
try: kept = [open('big') for _ in range(100)]
except OSError as error: print(error.errno)
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    held = hold(sandbox(place, file_bytes_max=1 << 20, files_open_max=20), code, user=user)
    assert held.output.split("\n")[:3] == ["27", "24", "(0, 0)"]


@every_way
def test_a_folder_that_grows_beyond_its_size_ends_the_child(user: str, place: Path, without: frozenset[str]) -> None:
    code = """
import time
for number in range(12):
    with open(f'f{number}', 'wb') as file: file.write(bytes(1 << 20))
time.sleep(20)
"""
    held = hold(sandbox(place, without=without, folder_bytes_max=8 << 20), code, user=user)
    assert held.reason in {"disk", "memory"}  # its folder may be in memory


def test_files_that_were_unlinked_are_counted_too(user: str, place: Path) -> None:
    code = """
import os, time
kept = []
for number in range(12):
    kept.append(open('f', 'wb', buffering=0)); kept[-1].write(bytes(1 << 20)); os.unlink('f')
time.sleep(20)
"""
    held = hold(sandbox(place, folder_bytes_max=8 << 20), code, user=user)
    assert held.reason in {"disk", "memory"}


def test_a_limit_that_is_demanded_and_cannot_be_held_keeps_it_from_starting(user: str, place: Path) -> None:
    settings = sandbox(place, without=WITHOUT["nothing"], demand=("core_dumps", "network", "memory"))
    held = hold(settings, "open('begun', 'w')", user=user)
    told = "what it demands does not hold on this machine: network (it may open sockets): run the gateway where"
    assert held.error.startswith(told)
    assert "memory (rlimit, and a watch on the sum; the sum of its processes" in held.error
    assert "Delegate=yes" in held.error
    assert not (place / "work" / "begun").exists()


@every_way
def test_what_is_demanded_and_holds_lets_it_start(user: str, place: Path, without: frozenset[str]) -> None:
    settings = sandbox(place, without=without)
    limits = hold(settings, "pass", user=user).containment.limits
    whole = tuple(limit for limit, held in limits.items() if held.by and not held.but)
    assert "core_dumps" in whole
    code = """
import os
for fd in range(3, 64):
    try: os.fstat(fd); print('open:', fd)
    except OSError: pass
print('on')
"""
    held = hold(sandbox(place, without=without, demand=whole), code, user=user)
    assert (held.error, held.output) == ("", "on\n")


def test_a_program_that_is_not_there_is_told_although_all_that_is_demanded_holds(user: str, place: Path) -> None:
    held = hold(sandbox(place, demand=("core_dumps",)), ["/usr/bin/no-such-program"], user=user)
    assert held.error == f"{place.name}: /usr/bin/no-such-program: No such file or directory"


def test_a_program_that_is_not_there_is_told(user: str, place: Path) -> None:
    held = hold(sandbox(place), ["/usr/bin/no-such-program"], user=user)
    assert held.error == f"{place.name}: /usr/bin/no-such-program: No such file or directory"


BEATS = """
import os, time
if os.fork() == 0:
    try: os.setsid()
    except PermissionError: pass
    if os.fork() == 0:
        while True:
            open('alive', 'w').write(str(time.monotonic())); time.sleep(0.02)
    os._exit(0)
while True: time.sleep(1)
"""


def firsts() -> set[str]:
    """Processes that are a namespace's first, and whose gateway is gone."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"sleep\x002147483647") and (
                "\nPPid:\t1\n" in (folder / "status").read_text()
            ):
                found.add(folder.name)
    return found


def test_a_gateway_killed_while_it_begins_a_program_leaves_nothing_behind(user: str, place: Path) -> None:
    before = firsts()
    for wait_ms in range(0, 80, 5):
        with begun(sandbox(place), "import time; time.sleep(1000)", user=user) as gateway:
            children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
            assert until(children.read_text)
            time.sleep(wait_ms / 1000)
            gateway.kill()
    try:
        assert until(lambda: firsts() <= before)
    finally:
        end_all_in(place)


@every_way
def test_when_the_gateway_is_killed_what_holds_the_end_ends_its_functions_at_the_next_start_at_the_latest(
    user: str, place: Path, without: frozenset[str]
) -> None:
    alive = place / "work" / "alive"
    settings = sandbox(place, without=without)
    try:
        with begun(settings, BEATS, user=user) as gateway:
            assert until(lambda: alive.exists() and alive.read_text())
            gateway.kill()
            gateway.wait()
        means = hold(settings, "pass", user=user).containment.limits["end"].by
        assert not beats(alive) or not ("cgroup" in means or "namespace" in means)
    finally:
        end_all_in(place)
