"""Builds echo.c, the smallest board, for tests of the launcher that need no firmware."""

import shutil
import subprocess
from pathlib import Path


def build_echo(folder: Path) -> Path:
    assert shutil.which("arm-none-eabi-gcc"), "install it: apt-get install gcc-arm-none-eabi"
    elf = folder / "echo.elf"
    layout = ["-Wl,--section-start=.vectors=0", "-Wl,-Ttext=0x100", "-Wl,--build-id=none", "-Wl,-e,reset"]
    flags = ["-mcpu=cortex-m3", "-mthumb", "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib"]
    source = Path(__file__).with_name("echo.c")
    subprocess.run(["arm-none-eabi-gcc", *flags, *layout, str(source), "-o", str(elf)], check=True)
    return elf
