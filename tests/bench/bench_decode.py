"""Frames and MQTT-SN in one process: from the bytes of a port to the PUBLISH of a reading."""

import random
import time
import zlib

from edge.boards.frames import FrameReader, build_frames
from edge.boards.link import ReadingFrame, decode_reading, encode_reading
from edge.boards.packets import Publish
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times

DESCRIPTION = "frames and MQTT-SN decoded in one process, beside unstuffing and CRC-32 alone"

READ_BYTES = 4096
READS_A_TURN = 4
PAYLOAD_BYTES = 100
BOOT = 7


def run(context: Context) -> list[Figure]:
    count = context.pick(400_000, 100_000)
    payloads, chunks = _stream(count)
    stream_mb = sum(map(len, chunks)) / 1e6

    def ours() -> float:
        return stream_mb / decode_all(chunks, payloads)

    def limit() -> float:
        began = time.process_time()
        check_all_arrived("the limit's frames", count, unstuff_and_check(chunks))
        return stream_mb / (time.process_time() - began)

    results = context.interleaved({"edgeloop": ours, "cobs_crc32_limit": limit})
    return [
        figure(
            "decode_mb_per_s",
            results["edgeloop"],
            "MB/s",
            "higher",
            goal=times(0.5, "cobs_crc32_limit"),
            references={"cobs_crc32_limit": results["cobs_crc32_limit"]},
        )
    ]


def _stream(count: int) -> tuple[list[bytes], list[bytes]]:
    """A few random payloads, and the stream of readings that carry them in turn as a board sends them, QoS 1, cut as
    a port's reads cut it."""
    rng = random.Random(1)
    payloads = [rng.randbytes(PAYLOAD_BYTES) for _ in range(256)]
    frames = (
        ReadingFrame(BOOT, number, min(number - 1, 7), Publish(1, payloads[number % 256], number % 65535 + 1, qos=1))
        for number in range(1, count + 1)
    )
    stream = build_frames(encode_reading(frame) for frame in frames)
    return payloads, [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]


def decode_all(chunks: list[bytes], payloads: list[bytes]) -> float:
    """Ours. Returns the CPU seconds; what came out is looked at between the turns of the clock, read for read."""
    reader, sequence, took_s = FrameReader(), 0, 0.0
    for first in range(0, len(chunks), READS_A_TURN):
        turn = chunks[first : first + READS_A_TURN]
        began = time.process_time()
        batches = [[decode_reading(content) for content in reader.feed(chunk)] for chunk in turn]
        took_s += time.process_time() - began
        for batch in batches:
            for frame in batch:
                sequence += 1
                if frame.sequence != sequence or frame.publish.payload != payloads[sequence % 256]:
                    raise NoFigure(f"reading {sequence} came out as {frame}")
    check_all_arrived("readings", reader.frames, sequence)
    return took_s


def unstuff_and_check(chunks: list[bytes]) -> int:
    """The limit: the same stream cut at its delimiters, unstuffed in place, the CRC-32 over it compared; no reasons,
    no bounds, no content handed on. Returns the frames whose CRC was right."""
    crc32 = zlib.crc32
    before_zero, residue = 0x0F6A7026, 0x2144DF1C
    right, held = 0, b""
    for chunk in chunks:
        segments = chunk.split(b"\0")
        segments[0] = held + segments[0]
        held = segments.pop()
        for segment in filter(None, segments):
            size = len(segment)
            decoded = bytearray(segment)
            at = 0
            while at < size:
                code = decoded[at]
                decoded[at] = 0
                at += code
            if crc32(decoded, before_zero) == residue:
                right += 1
    return right
