"""What the log compresses is any zlib's to read, whoever wrote it."""

import platform
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.log.deflate import deflate, deflate_plainly

WRITERS = pytest.mark.parametrize("write", [deflate, deflate_plainly])


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    raw = unpacker.decompress(packed)
    assert unpacker.eof
    assert unpacker.unused_data == b""
    return raw


@WRITERS
def test_bytes_come_back(write: Callable[[bytes], bytes]) -> None:
    pieces = st.lists(st.sampled_from([b'{"c":', b"21.5", b"\0" * 300, b"\xff"]) | st.binary(max_size=50), max_size=80)

    @given(st.binary(max_size=3000) | pieces.map(b"".join))
    def check(raw: bytes) -> None:
        assert _unpacked(write(raw)) == raw

    check()


@WRITERS
@pytest.mark.parametrize("size", [4095, 4096, 4097, 32_768, 65_535, 65_536, 200_000, 4_000_000])
def test_large_ones_come_back_whether_they_shrink_or_not(write: Callable[[bytes], bytes], size: int) -> None:
    rng = random.Random(size)
    noise = rng.randbytes(size)
    text = b"".join(b'{"seq":%d,"c":%d}' % (n, rng.randrange(99)) for n in range(size // 10))[:size]
    for raw in (noise, text, bytes(size)):
        assert _unpacked(write(raw)) == raw
    assert len(write(text)) < size // 2


def test_isal_writes_where_it_has_a_build() -> None:
    raw = b"0123456789" * 1000
    assert (deflate(raw) != deflate_plainly(raw)) == (platform.machine() in {"x86_64", "aarch64"})
