"""The copies of a function's secrets."""

import os
from pathlib import Path

import msgspec
import pytest

from edge.config_functions import FunctionSettings
from edge.functions.crew import Version
from edge.functions.sandbox import Sandbox
from edge.functions.versions import forget_others, take_over
from tests.functions.gateway import USERS, hold

OURS = USERS[0]  # the user of these tests


def taken_over(folder: Path, secret: str = "sesame", **more: object) -> Version:
    (folder / "f.py").write_text("")
    (folder / "key").write_text(secret)
    given = {"name": "f", "file": f"{folder}/f.py", "secrets": {"token": f"{folder}/key"}, **more}
    launch, digest = take_over(msgspec.convert(given, FunctionSettings), f"{folder}/own/f")
    return Version(1, launch, digest)


def test_secrets_are_copied_for_the_function_alone(tmp_path: Path) -> None:
    copy = Path(taken_over(tmp_path).launch.secrets["token"])
    assert copy.read_text() == "sesame"
    modes = [path.stat().st_mode & 0o777 for path in (copy, copy.parent, copy.parent.parent)]
    assert modes == ([0o440, 0o750, 0o711] if os.geteuid() == 0 else [0o400, 0o700, 0o711])
    assert copy.stat().st_gid == (0 if os.geteuid() == 0 else os.getegid())


def test_what_runs_keeps_its_secrets_until_it_is_forgotten(tmp_path: Path) -> None:
    first = taken_over(tmp_path)
    inode = os.stat(first.launch.secrets["token"]).st_ino
    again, second = taken_over(tmp_path), taken_over(tmp_path, "barley")
    assert again == first
    assert os.stat(first.launch.secrets["token"]).st_ino == inode, "the same file, for Landlock too"
    assert [Path(one.launch.secrets["token"]).read_text() for one in (first, second)] == ["sesame", "barley"]
    forget_others(f"{tmp_path}/own/f", [second])
    assert os.listdir(tmp_path / "own/f/secrets") == [Path(second.launch.secrets["token"]).parent.name]


def test_other_names_for_the_same_secrets_are_other_copies(tmp_path: Path) -> None:
    first, second = taken_over(tmp_path), taken_over(tmp_path, secrets={"pass": f"{tmp_path}/key"})
    assert [list(one.launch.secrets) for one in (first, second)] == [["token"], ["pass"]]
    assert Path(second.launch.secrets["pass"]).read_text() == "sesame"


@pytest.mark.parametrize("without", [set[str](), {"namespaces"}, {"namespaces", "landlock"}])
def test_secrets_are_read_in_a_data_dir_that_is_the_gateways_alone(tmp_path: Path, without: set[str]) -> None:
    tmp_path.chmod(0o700)
    (secret,) = taken_over(tmp_path).launch.secrets.values()
    sandbox = Sandbox(name="f", folder=f"{tmp_path}/own/f/work", read=(secret,), without=frozenset(without))
    held = hold(sandbox, f"print(open({secret!r}).read())", user=OURS)
    assert held.output.strip() == "sesame", held
