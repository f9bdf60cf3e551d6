"""What ./tools/setup installs from: hashes for everything, addresses for nothing, and nothing forgotten."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements.txt", "requirements-aws.txt", "requirements-dev.txt")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins(file: str) -> dict[str, str]:
    """Name to version; asserts that every line is a pin or one of its hashes."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if pin := PIN.match(line):
            found[pin["name"]] = pin["version"]
        else:
            assert HASH.match(line), f"{file}: {line}"
    return found


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("file", FILES)
def test_requirement_files_hold_pins_and_hashes_and_nothing_else(file: str) -> None:
    assert pins(file)


def test_all_that_pyproject_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = named(project["project"]["dependencies"])
    aws = named(project["project"]["optional-dependencies"]["aws"])
    tools = named(project["project"]["optional-dependencies"]["tools"])
    assert runtime <= pins("requirements.txt").keys()
    assert runtime | aws <= pins("requirements-aws.txt").keys()
    assert tools | named(project["dependency-groups"]["dev"]) <= pins("requirements-dev.txt").keys()


def test_a_package_has_the_same_version_in_every_file() -> None:
    seen: dict[str, str] = {}
    for file in FILES:
        for name, version in pins(file).items():
            assert seen.setdefault(name, version) == version, name


@pytest.mark.parametrize("script", ["setup", "lock", "test", "bench", "demo", "try-bare"])
def test_the_scripts_are_programs_whose_shell_accepts_them(script: str) -> None:
    path = ROOT / "tools" / script
    assert path.stat().st_mode & 0o111 == 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(path)], check=True)


def test_setup_refuses_an_option_it_does_not_know() -> None:
    done = subprocess.run([ROOT / "tools/setup", "--firmwear"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "./tools/setup --firmware PRESET" in done.stderr
