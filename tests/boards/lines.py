"""Serial lines for tests: how bytes that were written reach the reader."""

import random
from collections.abc import Iterable, Iterator

from edge.boards.frames import FrameReader, build_frame


def whole(stream: bytes) -> Iterator[bytes]:
    yield stream


def byte_by_byte(stream: bytes) -> Iterator[bytes]:
    for at in range(len(stream)):
        yield stream[at : at + 1]


def in_pieces(stream: bytes, seed: int, largest: int = 300) -> Iterator[bytes]:
    rng, at = random.Random(seed), 0
    while at < len(stream):
        size = rng.randint(1, largest)
        yield stream[at : at + size]
        at += size


def read_all(reader: FrameReader, pieces: Iterable[bytes]) -> list[bytes]:
    """Everything that comes out, and the line falls silent at the end."""
    contents = [content for piece in pieces for content in reader.feed(piece)]
    return contents + reader.expire()


def noisy(contents: list[bytes], seed: int, chance: float) -> tuple[bytes, list[bytes]]:
    """The stream of these frames with bytes flipped, lost and added, and the contents whose frames were left whole."""
    rng = random.Random(seed)
    stream, unhurt = bytearray(), []
    for content in contents:
        frame = build_frame(content)
        arrived = bytearray()
        for byte in frame:
            roll = rng.random() / chance
            if roll < 1 / 3:
                arrived.append(byte ^ 1 << rng.randrange(8))
            elif roll < 2 / 3:
                arrived += bytes((byte, rng.randrange(256)))
            elif roll >= 1:
                arrived.append(byte)
        if arrived == frame:
            unhurt.append(content)
        stream += arrived
    return bytes(stream), unhurt
