"""`mcu build`: the firmware by its CMake presets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from edge_tools.hil.errors import HilError, SetupError

_PACKAGES = {"cmake": "cmake ninja-build", "arm-none-eabi-gcc": "gcc-arm-none-eabi picolibc-arm-none-eabi"}


def boards(firmware: Path) -> list[str]:
    """The presets that build an image: those with a folder under boards/. Raises SetupError without a checkout."""
    presets = firmware / "CMakePresets.json"
    try:
        listed = json.loads(presets.read_text())["configurePresets"]
    except FileNotFoundError as problem:
        raise SetupError(
            f"no firmware sources at {firmware}", "Run from a checkout, or name one: --firmware"
        ) from problem
    names = [preset["name"] for preset in listed if not preset.get("hidden")]
    return [name for name in names if (firmware / "boards" / name).is_dir()]


def commands(board: str, firmware: Path) -> list[list[str]]:
    """To be run in firmware/, one after the other."""
    known = boards(firmware)
    if board not in known:
        raise SetupError(f"no board {board!r} in {firmware}", f"There are: {', '.join(known)}.")
    return [["cmake", "--preset", board], ["cmake", "--build", "--preset", board]]


def build(board: str, firmware: Path) -> None:
    """What the compilers say goes to stderr."""
    steps = commands(board, firmware)
    for program, packages in _PACKAGES.items():
        if shutil.which(program) is None and not (board == "posix" and program != "cmake"):
            raise SetupError(f"{program} is not installed", f"Install it: apt-get install {packages}")
    for step in steps:
        if subprocess.run(step, cwd=firmware, stdout=sys.stderr, check=False).returncode != 0:
            raise HilError(f"`{' '.join(step)}` failed in {firmware}", "What went wrong is shown above.")
