"""Requirements from a folder of wheels made here: no package index is asked."""

import asyncio
import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.functions.requirements import Bounds, RequirementsError, folder_name, install, tidy
from tests.functions.gateway import open_folder

OFFLINE = {"PIP_NO_INDEX": "1"}


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def wheel(folder: Path, name: str = "scale", version: str = "1.0", tag: str = "py3-none-any") -> str:
    """Gives its hash."""
    files = {
        f"{name}/__init__.py": b"def scale(value):\n    return 2 * value\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{name}-{version}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for path, data in files.items()
    )
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        for inner, data in files.items():
            file.writestr(inner, data)
        file.writestr(f"{name}-{version}.dist-info/RECORD", f"{record}{name}-{version}.dist-info/RECORD,,\n")
    path.chmod(0o644)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ask(place: Path, text: str, **more: str) -> Path:
    (place / "wheels").mkdir(exist_ok=True)
    (place / "wheels").chmod(0o755)
    file = place / "requirements.txt"
    file.write_text(text)
    environment = {**OFFLINE, "PIP_FIND_LINKS": f"{place}/wheels", **more}
    return asyncio.run(install(file, place / "site", environment=environment))


def refused(place: Path, text: str, **more: str) -> RequirementsError:
    with pytest.raises(RequirementsError) as raised:
        ask(place, text, **more)
    assert not list((place / "site").glob("*"))
    return raised.value


def test_packages_with_the_right_hash_are_installed_into_a_folder_of_their_own(place: Path) -> None:
    (place / "wheels").mkdir()
    digest = wheel(place / "wheels")
    folder = ask(place, f"scale==1.0 --hash=sha256:{digest}\n")
    code = f"import sys; sys.path.append({str(folder)!r}); import scale; print(scale.scale(21))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    assert [path.name for path in (place / "site").iterdir()] == [folder.name]
    file = folder / "scale" / "__init__.py"
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (os.geteuid(), 0o644)


def test_the_same_requirements_are_installed_once(place: Path) -> None:
    (place / "wheels").mkdir()
    text = f"scale==1.0 --hash=sha256:{wheel(place / 'wheels')}\n"
    folder = ask(place, text)
    (place / "wheels" / "scale-1.0-py3-none-any.whl").unlink()
    assert ask(place, text) == folder
    assert folder.name == folder_name(text.encode())


def test_other_requirements_get_another_folder_and_the_old_one_is_removed_when_told(place: Path) -> None:
    (place / "wheels").mkdir()
    first = ask(place, f"scale==1.0 --hash=sha256:{wheel(place / 'wheels')}\n")
    second = ask(place, f"scale==2.0 --hash=sha256:{wheel(place / 'wheels', version='2.0')}\n")
    assert {path.name for path in (place / "site").iterdir()} == {first.name, second.name}
    tidy(place / "site", {second})
    assert [path.name for path in (place / "site").iterdir()] == [second.name]
    tidy(place / "absent", set())


def test_a_wrong_hash_is_refused_and_leaves_nothing(place: Path) -> None:
    (place / "wheels").mkdir()
    wheel(place / "wheels")
    error = refused(place, f"scale==1.0 --hash=sha256:{'0' * 64}\n")
    assert error.reason == "wrong_hash"


def test_a_package_without_a_hash_is_refused(place: Path) -> None:
    (place / "wheels").mkdir()
    wheel(place / "wheels")
    assert refused(place, "scale==1.0\n").reason == "no_hash"


def test_a_package_that_would_have_to_be_built_is_refused(place: Path) -> None:
    (place / "wheels").mkdir()
    (place / "wheels" / "scale-1.0.tar.gz").write_bytes(b"")
    error = refused(place, f"scale==1.0 --hash=sha256:{'0' * 64}\n")
    assert error.reason == "no_wheel"


def test_without_a_line_to_the_index_the_remedy_is_told(place: Path) -> None:
    error = refused(
        place,
        f"scale==1.0 --hash=sha256:{'0' * 64}\n",
        PIP_NO_INDEX="0",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
    )
    assert error.reason == "offline"
    assert "PIP_FIND_LINKS" in error.remedy


@pytest.mark.parametrize("line", ["-r other.txt", "-e .", "-c limits.txt", "--target /usr", "--global-option=x"])
def test_options_that_reach_beyond_the_file_are_refused(place: Path, line: str) -> None:
    error = refused(place, f"# packages\n{line}\n")
    assert (error.reason, "line 2" in error.problem) == ("invalid", True)


def test_pip_is_ended_when_it_takes_too_long(place: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = place / "requirements.txt"
        file.write_text(f"scale==1.0 --hash=sha256:{'0' * 64}\n")
        environment = {"PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        with pytest.raises(RequirementsError) as raised:
            asyncio.run(install(file, place / "site", environment=environment, bounds=Bounds(timeout_s=2)))
    assert raised.value.reason == "timeout"
    assert not list((place / "site").iterdir())


def test_what_an_interrupted_installation_left_is_removed_by_the_next(place: Path) -> None:
    left = place / "site" / ".staging" / "work" / "site"
    left.mkdir(parents=True)
    (left / "half.py").write_text("x")
    (place / "wheels").mkdir()
    folder = ask(place, f"scale==1.0 --hash=sha256:{wheel(place / 'wheels')}\n")
    assert [path.name for path in (place / "site").iterdir()] == [folder.name]
    assert not (folder / "half.py").exists()
