import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_tools.hil.errors import HilError
from edge_tools.hil.identity import FLASH_BYTES, factory_flash, identity_page

FIRMWARE = Path(__file__).parents[2] / "firmware"
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "identity.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["board_id"])
def test_the_page_is_the_one_the_firmware_reads(vector: dict[str, str]) -> None:
    assert identity_page(vector["board_id"], bytes.fromhex(vector["entropy"])).hex() == vector["page"]


@pytest.fixture(scope="module")
def firmware_reads(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], str]:
    """What the firmware's own parser, built for this host, makes of a page."""
    program = tmp_path_factory.mktemp("identity") / "reader"
    sources = [Path(__file__).with_name("identity_reader.c"), FIRMWARE / "app/identity.c"]
    sources += sorted((FIRMWARE / "wire").glob("*.c"))
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{FIRMWARE}"]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(program)], check=True)

    def read(page: bytes) -> str:
        return subprocess.run([str(program)], input=page, capture_output=True, check=True).stdout.decode()

    return read


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["board_id"])
def test_the_firmware_reads_what_was_written(firmware_reads: Callable[[bytes], str], vector: dict[str, str]) -> None:
    page = identity_page(vector["board_id"], bytes.fromhex(vector["entropy"])).ljust(256, b"\xff")
    assert firmware_reads(page) == f"ok {vector['board_id']} {vector['entropy']}"


def test_the_firmware_refuses_a_page_with_any_bit_flipped(firmware_reads: Callable[[bytes], str]) -> None:
    page = identity_page("board1", bytes(range(32)))
    for bit in range(0, len(page) * 8, 29):
        damaged = bytearray(page)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        assert not firmware_reads(bytes(damaged)).startswith("ok"), bit
    assert firmware_reads(b"\xff" * 256) == "missing"


@pytest.mark.parametrize("board_id", ["", "x" * 24, "a/b", "a#", "ä", "a\0b", "a b"])
def test_a_board_id_that_is_no_client_id_is_refused(board_id: str) -> None:
    with pytest.raises(HilError, match="does not fit"):
        identity_page(board_id, bytes(32))


def test_entropy_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(HilError, match="entropy of 31 bytes"):
        identity_page("board1", bytes(31))


def test_factory_flash_is_erased_where_the_firmware_writes_and_readable_by_us_alone(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    factory_flash(flash, "board1")
    content = flash.read_bytes()
    assert len(content) == FLASH_BYTES
    assert content[:4] == b"ELID"
    assert set(content[4096:0x20000]) == {0xFF}
    assert stat.S_IMODE(flash.stat().st_mode) == 0o600
    assert flash.stat().st_blocks * 512 < 1_000_000


def test_two_boards_never_share_their_entropy(tmp_path: Path) -> None:
    pages = set()
    for number in range(2):
        factory_flash(tmp_path / f"{number}", "board1")
        pages.add((tmp_path / f"{number}").read_bytes()[:76])
    assert len(pages) == 2
