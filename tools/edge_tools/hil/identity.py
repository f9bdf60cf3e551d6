"""What a board is told once in its life, and its flash as it leaves the factory.

The identity page, little-endian, at the start of flash: magic "ELID", u16 version, u16 length of what follows up
to the CRC, the board id in 32 bytes padded with NUL, 32 bytes of entropy, CRC-32 over all before it.
"""

import os
import re
import struct
import zlib
from pathlib import Path

from edge_tools.hil.errors import HilError

FLASH_BYTES = 16 * 1024 * 1024
SECTOR_BYTES = 4096
ENTROPY_BYTES = 32
_ERASED_BYTES = 0x20000  # all that lies before the first image slot
_MAGIC = b"ELID"
_VERSION = 1
_ID_BYTES = 32
_BOARD_ID = re.compile(r"[A-Za-z0-9_.:-]{1,23}")


def identity_page(board_id: str, entropy: bytes) -> bytes:
    """board_id: the board's MQTT-SN client id (1.2, 5.3.1) as well; entropy: 32 bytes nobody else knows."""
    if not _BOARD_ID.fullmatch(board_id):
        raise HilError(f"the board id {board_id!r} does not fit", "Give 1 to 23 letters, digits, _ . : or -")
    name = board_id.encode()
    if len(entropy) != ENTROPY_BYTES:
        raise HilError(f"entropy of {len(entropy)} bytes", f"Give {ENTROPY_BYTES}.")
    body = name.ljust(_ID_BYTES, b"\0") + entropy
    page = _MAGIC + struct.pack("<HH", _VERSION, len(body)) + body
    return page + struct.pack("<I", zlib.crc32(page))


def factory_flash(path: Path, board_id: str, entropy: bytes | None = None) -> None:
    """A new flash file of mode 0600 (it holds the entropy), sparse but for its erased beginning and the identity."""
    page = identity_page(board_id, os.urandom(ENTROPY_BYTES) if entropy is None else entropy)
    path.touch(mode=0o600)
    with path.open("r+b") as flash:
        flash.truncate(0)
        flash.truncate(FLASH_BYTES)
        flash.write(page.ljust(_ERASED_BYTES, b"\xff"))
