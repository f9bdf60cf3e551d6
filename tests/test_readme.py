"""The README: its commands run as printed, in order, in a fresh copy of the checkout with an empty HOME."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme import LIMIT_S, Command, blocks, commands

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
END_S = 10.0
# What the README and its gateway files name, and what stands for it here, so that two runs on a machine do not meet.
FOLDER = "/tmp/edgeloop"
PORT = "18830"

# Runs one command in the shell that all share. What talks to something just started in the background may come too
# early, as for a person: it is tried again until its time is up. `timeout` ends a command that never does by itself.
# What follows a command are words that it prints; a line that lacks them is as good as none.
RUN = """
run() {
    local line=$1 limit_s=$2 command=$3 deadline=$((SECONDS + $2)) code words
    shift 3
    echo "README.md:$line: $command" >&2
    while :; do
        if [ $# = 0 ]; then eval "$command"; else eval "$command" >"$HOME/shown" 2>&1; fi
        code=$?
        case $command in timeout\\ *) [ $code = 124 ] && code=0 ;; esac
        [ $# = 0 ] || cat "$HOME/shown"
        for words in "$@"; do
            if ! grep -qF -e "$words" "$HOME/shown"; then
                echo "README.md:$line: does not show: $words" >&2
                code=1
            fi
        done
        [ $code = 0 ] && return
        if [ -z "$(jobs -pr)" ] || [ $SECONDS -ge $deadline ]; then
            echo "README.md:$line: exit $code from: $command" >&2
            exit 1
        fi
        sleep 1
    done
}
"""


def script(chosen: list[Command]) -> str:
    lines = [" ".join([f"run {c.line} {c.limit_s}", *map(shlex.quote, (c.text, *c.shows))]) for c in chosen]
    return RUN + "".join(f"{line} </dev/null\n" for line in lines)


def run_as_printed(chosen: list[Command], folder: Path, home: Path) -> tuple[int, str]:
    """Exit code and output of all commands in one shell; whatever they left running is ended with the shell's group."""
    limit_s = sum(command.limit_s for command in chosen)
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    output = home / "output"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script(chosen)],
            cwd=folder,
            env={**kept, "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = shell.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end_group(shell)
    return code, output.read_text(errors="replace")


def _end_group(shell: subprocess.Popen[bytes]) -> None:
    """The group is the shell's own session. SIGTERM first, so that emulators end what they started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        there = _signal_group(shell, number)
        deadline = time.monotonic() + END_S
        while there and time.monotonic() < deadline:
            time.sleep(0.02)
            shell.poll()
            there = _signal_group(shell, 0)
    shell.wait()


def _signal_group(shell: subprocess.Popen[bytes], number: int) -> bool:
    """False: nobody is left in the group."""
    try:
        os.killpg(shell.pid, number)
    except ProcessLookupError:
        return False
    return True


def copy_of_checkout(folder: Path) -> Path:
    """What git would give a newcomer, with what is changed but not yet committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    copy = folder / "edgeloop"
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name, follow_symlinks=False)
    return copy


def test_commands_are_the_dollar_lines_of_console_blocks_that_may_run() -> None:
    text = """
```console
$ one --flag
its output
$ two \\
      --on-a-second-line &
```

<!-- run: 900s -->
<!-- shows: three | 21.5 | two words -->
```console
$ three -v
$ four
```

<!-- run: no -->
```console
$ never
```

```toml
$ = "no command"
```
"""
    assert commands(text) == [
        Command(3, "one --flag", LIMIT_S),
        Command(5, "two --on-a-second-line &", LIMIT_S),
        Command(12, "three -v", 900, ("21.5", "two words")),
        Command(13, "four", 900),
    ]
    assert [command.background for command in commands(text)] == [False, True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ open\n",
        "<!-- run: 5s -->\nwords\n",
        "<!-- run: soon -->\n```console\n$ x\n```\n",
        "<!-- shows: y | z -->\n```console\n$ x\n```\n",
        "<!-- shows: x -->\n```console\n$ x\n```\n",
        "<!-- shows: x | z -->\nwords\n",
    ],
)
def test_a_mark_or_fence_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d"):
        commands(text)


def test_a_command_that_fails_is_named_with_its_line_and_nothing_after_it_runs(tmp_path: Path) -> None:
    code, output = run_as_printed([Command(7, "false", 5), Command(8, "echo after", 5)], tmp_path, tmp_path)
    assert code == 1
    assert "README.md:7: exit 1 from: false" in output
    assert "README.md:8" not in output


def test_a_command_that_does_not_show_what_it_should_is_named(tmp_path: Path) -> None:
    shown = Command(7, "echo '{\"c\":21.5}' it is; cd /", 5, ('"c":21.5', "it is"))
    code, output = run_as_printed([shown, Command(8, "test $PWD = /", 5)], tmp_path, tmp_path)
    assert (code, '{"c":21.5} it is' in output) == (0, True), output
    code, output = run_as_printed([Command(9, "echo 21.4", 5, ("21.5",))], tmp_path, tmp_path)
    assert code == 1
    assert "README.md:9: does not show: 21.5" in output


def test_what_comes_too_early_for_the_background_is_tried_again_and_all_is_ended(tmp_path: Path) -> None:
    chosen = [
        Command(1, "export WORD='two words'", 5),
        Command(2, '(sleep 0.3; echo "$WORD $BASHPID" > late; exec sleep 600) &', 5),
        Command(3, "grep 'two words' late", 20),
        Command(4, "timeout 0.1 sleep 9", 5),
    ]
    code, output = run_as_printed(chosen, tmp_path, tmp_path)
    assert code == 0, output
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "late").read_text().split()[-1]), 0)


def test_every_toml_block_of_the_readme_is_toml() -> None:
    written = ["\n".join(block.lines) for block in blocks(README.read_text()) if block.language == "toml"]
    assert written
    assert all(tomllib.loads(text) for text in written)


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_every_proof_that_a_promise_names_is_there() -> None:
    promises = README.read_text().partition("## Promises")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 8
    for proof in rows:
        named = re.findall(r"`([^`]+)`", proof)
        assert named, proof
        folder = ""
        for place in named:
            if place.startswith(("tests/", "firmware/", "test_")):
                folder = place.rpartition("/")[0] or folder
                pattern = place if "/" in place else f"{folder}/{place}"
                assert list(ROOT.glob(pattern.rstrip("/"))), place


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short name: a Unix socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        yield Path(folder)


@pytest.mark.system
def test_the_commands_of_the_readme_work_as_printed(tmp_path: Path, scratch: Path) -> None:
    copy = copy_of_checkout(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for file in (copy / "README.md", *(copy / "device_configs").rglob("*.toml")):
        file.write_text(file.read_text().replace(FOLDER, str(scratch / "edgeloop")).replace(PORT, port))
    home = tmp_path / "home"
    home.mkdir()
    code, output = run_as_printed(commands((copy / "README.md").read_text()), copy, home)
    assert code == 0, output[-10_000:]
