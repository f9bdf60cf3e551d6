"""How often noise passes for a frame: our framing, and on the same noise the framing that ends in a CRC-16."""

import binascii
import random
from collections.abc import Callable, Iterator

from edge.boards.frames import FrameReader, build_frame
from tests.bench.figures import Context, Figure, NoFigure, figure

DESCRIPTION = "noise, bit errors and bursts offered as frames; how many pass"

SEED = 3
BATCH = 1000
# A frame that was not harmed, behind each batch: it has to arrive, or the reader has lost the line.
GOOD = b"\x03resynchronised"

# What is offered in our framing, and in the one with a CRC-16.
Pairs = list[tuple[bytes, bytes]]


def run(context: Context) -> list[Figure]:
    rounds = context.pick(10_000_000, 1_000_000) // BATCH
    rng = random.Random(SEED)
    reader, tried = FrameReader(), 0
    false_accepts, false_accepts_crc16 = 0, 0
    closing, frames = build_frame(GOOD), _frames()
    for number in range(rounds):
        segments = KINDS[number % len(KINDS)](rng, frames)
        tried += len(segments)
        stream = b"\0".join([ours for ours, _ in segments])
        contents = reader.feed(stream + closing)
        if contents.pop() != GOOD:
            raise NoFigure("a whole frame behind noise did not arrive")
        false_accepts += len(contents)
        false_accepts_crc16 += sum(_crc16_accepts(theirs) for _, theirs in segments)
        reader.take_text()
        if number % 1000 == 999:
            context.progress(f"  {tried:,} tried")
    return [
        figure("frames_tried", [tried], "frames", "higher"),
        figure(
            "false_accepts",
            [false_accepts],
            "frames",
            "lower",
            goal=0,
            references={"crc16": [false_accepts_crc16]},
        ),
    ]


def _noise(rng: random.Random, frames: Pairs) -> Pairs:
    """Random bytes cut anywhere. The same for both framings."""
    del frames
    return [(segment, segment) for segment in _random_segments(rng)]


def _stuffed_noise(rng: random.Random, frames: Pairs) -> Pairs:
    """Random bytes whose COBS is sound, so that the checksum alone stands between them and acceptance."""
    del frames
    return [(bytes((len(segment) + 1,)) + segment,) * 2 for segment in _random_segments(rng)]


def _bit_errors(rng: random.Random, frames: Pairs) -> Pairs:
    """One to eight bits of a frame flipped, each anywhere in it."""
    found = []
    for _ in range(BATCH):
        ours, theirs = rng.choice(frames)
        flips = [rng.random() for _ in range(rng.randint(1, 8))]
        found.append((_flipped(ours, flips), _flipped(theirs, flips)))
    return found


def _bursts(rng: random.Random, frames: Pairs) -> Pairs:
    """Up to 64 bits in a row of a frame replaced by noise."""
    found = []
    for _ in range(BATCH):
        ours, theirs = rng.choice(frames)
        at, burst = rng.random(), rng.getrandbits(64) | 1
        found.append((_overlaid(ours, at, burst), _overlaid(theirs, at, burst)))
    return found


KINDS: list[Callable[[random.Random, Pairs], Pairs]] = [_noise, _stuffed_noise, _bit_errors, _bursts]


def _random_segments(rng: random.Random) -> Iterator[bytes]:
    """A batch of segments of 6 to 70 bytes without zero."""
    noise = rng.randbytes(80 * BATCH).replace(b"\0", b"")
    at = 0
    for _ in range(BATCH):
        size = rng.randrange(6, 71)
        yield noise[at : at + size]
        at += size


def _flipped(segment: bytes, flips: list[float]) -> bytes:
    bits = 0
    for place in flips:
        bits ^= 1 << int(place * 8 * len(segment))
    return _changed(segment, bits)


def _overlaid(segment: bytes, at: float, burst: int) -> bytes:
    return _changed(segment, burst << int(at * 8 * len(segment)) & (1 << 8 * len(segment)) - 1)


def _changed(segment: bytes, bits: int) -> bytes:
    """The segment with these bits flipped; no bits would leave it a frame, so then the lowest is."""
    return (int.from_bytes(segment, "big") ^ (bits or 1)).to_bytes(len(segment), "big")


def _crc16_accepts(segments: bytes) -> int:
    """How many frames there are in what was one frame: COBS, and CRC-16/XMODEM over content and check."""
    accepted = 0
    for segment in segments.split(b"\0"):
        size, at = len(segment), 0
        decoded = bytearray(segment)
        while at < size:
            code = decoded[at]
            decoded[at] = 0
            at += code
        # Zeros in front leave the CRC of XMODEM at its start.
        if at == size > 3 and binascii.crc_hqx(decoded, 0) == 0:
            accepted += 1
    return accepted


def _frames() -> Pairs:
    """The same contents in both framings, without delimiters."""
    rng = random.Random(SEED)
    found = []
    for number in range(500):
        content = b"\x02" + rng.randbytes(10 + number % 60)
        ours = build_frame(content)[1:-1]
        found.append((ours, _stuffed(content + binascii.crc_hqx(content, 0).to_bytes(2, "big"))))
        if _crc16_accepts(found[-1][1]) != 1:
            raise NoFigure("the framing to be compared with does not take its own frames")
    return found


def _stuffed(raw: bytes) -> bytes:
    return b"".join([bytes((len(run) + 1,)) + run for run in raw.split(b"\0")])
