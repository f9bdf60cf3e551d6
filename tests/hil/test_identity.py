import json
import stat
from pathlib import Path

import pytest

from edge_tools.hil.errors import HilError
from edge_tools.hil.identity import FLASH_BYTES, factory_flash, identity_page

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "identity.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["board_id"])
def test_the_page_is_the_one_the_firmware_reads(vector: dict[str, str]) -> None:
    assert identity_page(vector["board_id"], bytes.fromhex(vector["entropy"])).hex() == vector["page"]


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
