"""The serial wire, judged by vectors shared with C, by the cobs package, and by a plain model written beside it."""

import random
import tracemalloc
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cobs import cobs  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from edge.boards import frames
from edge.boards.frames import CHANNELS, FrameReader, build_frame, build_frames
from tests.boards.lines import byte_by_byte, in_pieces, noisy, read_all, whole

VECTORS: dict[str, Any] = msgspec.json.decode((Path(__file__).parents[1] / "vectors/wire.json").read_bytes())


def named(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", rows, ids=[row["name"] for row in rows])


def sealed(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(4, "little")


def rejections(reader: FrameReader) -> dict[str, int]:
    return {reason: count for reason, count in reader.rejected.items() if count}


def content_of(size: int, seed: int = 1, zeros: float = 1 / 256) -> bytes:
    rng = random.Random(seed)
    return b"\x01" + bytes(0 if rng.random() < zeros else rng.randint(1, 255) for _ in range(size - 1))


# --- Vectors and the independent judge


@named(VECTORS["frames"])
def test_vector_frames_are_built_and_read(vector: dict[str, str]) -> None:
    content, frame = bytes.fromhex(vector["content_hex"]), bytes.fromhex(vector["frame_hex"])
    assert build_frame(content) == frame
    assert FrameReader(content_bytes_max=65535).feed(frame) == [content]


@pytest.mark.parametrize("cut", [whole, byte_by_byte], ids=["whole", "byte by byte"])
@named(VECTORS["streams"])
def test_vector_streams_are_sorted_as_the_vectors_say(vector: dict[str, Any], cut: Any) -> None:
    reader = FrameReader(**({"content_bytes_max": size} if (size := vector.get("content_bytes_max")) else {}))
    contents = [content for piece in cut(bytes.fromhex(vector["stream_hex"])) for content in reader.feed(piece)]
    if vector.get("expires", True):
        contents += reader.expire()
    assert [content.hex() for content in contents] == vector["frames_hex"]
    assert reader.take_text() == vector.get("text", [])
    assert [line.hex() for line in reader.take_smp()] == vector.get("smp_hex", [])
    assert rejections(reader) == vector.get("rejected", {})
    assert reader.frames == len(contents)


@pytest.mark.parametrize("zeros", [0, 1 / 256, 1 / 8, 1])
def test_frames_of_every_length_are_what_the_cobs_package_makes(zeros: float) -> None:
    sizes = [*range(1, 520), *range(1015, 1025), *range(2040, 2049)]
    for size in sizes:
        content = content_of(size, size, zeros)
        frame = build_frame(content)
        assert frame == b"\0" + cobs.encode(sealed(content)) + b"\0"
        assert FrameReader().feed(frame) == [content]


@pytest.mark.parametrize("size", [249, 250, 251, 254, 255, 256, 503, 504, 505, 506])
def test_a_block_of_254_at_the_end_is_read_in_both_of_its_forms(size: int) -> None:
    seed = next(s for s in range(1000) if 0 not in sealed(content_of(size, s, 0)))
    content = content_of(size, seed, 0)
    frame = build_frame(content)
    assert FrameReader().feed(frame) == [content]
    if len(sealed(content)) % 254 == 0:
        assert FrameReader().feed(frame[:-1] + b"\x01\0") == [content]


def test_the_crc_constant_skips_one_zero() -> None:
    for data in (b"", b"\0", b"123456789", bytes(300)):
        assert zlib.crc32(b"\0" + data, frames._BEFORE_ZERO) == zlib.crc32(data)
        assert zlib.crc32(sealed(data)) == frames._RESIDUE


# --- The same case over different lines

CASE = [content_of(size, size, zeros) for size in (1, 2, 20, 120, 249, 250, 251, 600, 2048) for zeros in (0, 0.1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_a_bytewise_and_a_chopped_line_carry_all(seed: int) -> None:
    stream = build_frames(CASE)
    for pieces in (whole(stream), byte_by_byte(stream), in_pieces(stream, seed)):
        reader = FrameReader()
        assert read_all(reader, pieces) == CASE
        assert rejections(reader) == {}
        assert reader.frames == len(CASE)


@pytest.mark.parametrize("chance", [0.0002, 0.002, 0.02])
@pytest.mark.parametrize("seed", range(10))
def test_a_lossy_line_costs_only_the_frames_it_hit(seed: int, chance: float) -> None:
    sent = CASE * 5
    stream, unhurt = noisy(sent, seed, chance)
    reader = FrameReader()
    arrived = read_all(reader, in_pieces(stream, seed))
    assert Counter(unhurt) <= Counter(arrived) <= Counter(sent)


def test_a_delayed_line_costs_only_the_frame_it_cut() -> None:
    sent = CASE[:8]
    stream = build_frames(sent)
    ends = [len(build_frames(sent[:count])) for count in range(len(sent) + 1)]
    for cut in range(1, len(stream)):
        reader = FrameReader()
        arrived = reader.feed(stream[:cut]) + reader.expire() + reader.feed(stream[cut:])
        hit = [number for number, (start, end) in enumerate(pairwise(ends)) if start + 1 < cut < end - 1]
        assert arrived == [content for number, content in enumerate(sent) if number not in hit]
        assert not reader.pending
        assert sum(reader.rejected.values()) + len(reader.take_text()) == 2 * len(hit)


# --- Damage


def test_every_lost_byte_and_every_flipped_bit_costs_at_most_its_frame() -> None:
    before, hit, after = content_of(30, 1), content_of(40, 2, 0.2), content_of(30, 3)
    frame = build_frame(hit)
    damaged = [frame[:at] + frame[at + 1 :] for at in range(len(frame))]
    damaged += [flipped(frame, bit) for bit in range(8 * len(frame))]
    for wreck in damaged:
        reader = FrameReader()
        arrived = read_all(reader, whole(build_frame(before) + wreck + build_frame(after)))
        assert arrived in ([before, after], [before, hit, after])


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_single_lost_delimiter_costs_nothing() -> None:
    sent = [content_of(size, size) for size in (5, 60, 300)]
    stream = build_frames(sent)
    for at, byte in enumerate(stream):
        if byte == 0:
            assert read_all(FrameReader(), whole(stream[:at] + stream[at + 1 :])) == sent


def test_frames_may_share_a_delimiter_and_delimiters_may_repeat() -> None:
    sent = [content_of(size, size) for size in (5, 60, 300)]
    bodies = [build_frame(content)[1:-1] for content in sent]
    assert FrameReader().feed(b"\0" + b"\0".join(bodies) + b"\0") == sent
    assert FrameReader().feed(bytes(5) + (bytes(5).join(bodies)) + bytes(5)) == sent


def test_a_frame_begun_within_a_frame_is_read_and_a_frame_within_a_payload_is_payload() -> None:
    inner, reader = content_of(50, 7), FrameReader()
    cut_off = build_frame(content_of(200, 8))[:100]
    assert reader.feed(cut_off + build_frame(inner)) == [inner]
    assert sum(reader.rejected.values()) == 1
    nested = b"\x01" + build_frame(b"\x01" + build_frame(inner))
    assert reader.feed(build_frame(nested)) == [nested]


# --- Reasons


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (b"\x01", "too_short"),
        (cobs.encode(sealed(b"")), "too_short"),
        (cobs.encode(b"\x01\x02\x03\x7f"), "too_short"),
        (b"\x05\x01\x02", "bad_cobs"),
        (cobs.encode(sealed(b"\x01abc")[:-1] + b"\x00"), "bad_crc"),
        (cobs.encode(sealed(b"\x00abc")), "unknown_channel"),
        (cobs.encode(sealed(b"\x04abc")), "unknown_channel"),
        (cobs.encode(sealed(b"\xffabc")), "unknown_channel"),
        (cobs.encode(sealed(content_of(2049))), "too_long"),
        (cobs.encode(sealed(content_of(2060, zeros=1))), "too_long"),
        (cobs.encode(sealed(content_of(9000))), "too_long"),
    ],
)
def test_what_is_no_frame_is_one_rejection_with_its_reason(segment: bytes, reason: str) -> None:
    good = content_of(10)
    for cut in (whole, byte_by_byte):
        reader = FrameReader()
        assert read_all(reader, cut(build_frame(good) + segment + build_frame(good))) == [good, good]
        assert rejections(reader) == {reason: 1}
        assert reader.sample[0] == (reason, segment[:64])
        assert reader.take_text() == []


@pytest.mark.parametrize("cap", [1, 16, 247, 248, 249, 250, 256, 508, 2048])
def test_the_cap_is_on_the_content_whatever_its_zeros(cap: int) -> None:
    for zeros in (0, 0.05, 1):
        reader = FrameReader(content_bytes_max=cap)
        assert reader.feed(build_frame(content_of(cap, 3, zeros))) == [content_of(cap, 3, zeros)]
        assert reader.feed(build_frame(content_of(cap + 1, 3, zeros))) == []
        assert rejections(reader) == {"too_long": 1}


def test_what_follows_an_overlong_segment_is_skipped_to_the_next_delimiter() -> None:
    good, reader = content_of(10), FrameReader(content_bytes_max=64)
    assert reader.feed(b"\xff" * 100) == []
    assert reader.pending
    assert reader.feed(b"more of it" * 50) == []
    assert reader.feed(b"\xfe end\0" + build_frame(good)) == [good]
    assert rejections(reader) == {"too_long": 1}
    assert reader.take_text() == []


def test_silence_ends_an_overlong_segment() -> None:
    reader = FrameReader(content_bytes_max=64)
    reader.feed(b"\xff" * 100)
    reader.expire()
    assert not reader.pending
    assert reader.feed(b"booted\n\0") == []
    assert (reader.take_text(), rejections(reader)) == (["booted"], {"too_long": 1})


def test_silence_closes_a_segment_by_what_it_is() -> None:
    content = content_of(30)
    reader = FrameReader()
    reader.feed(b"\0" + build_frame(content)[1:-1])
    assert reader.pending
    assert reader.expire() == [content]
    reader.feed(b"half a line")
    assert (reader.expire(), reader.take_text()) == ([], ["half a line"])
    reader.feed(build_frame(content)[:20])
    assert (reader.expire(), rejections(reader)) == ([], {"timeout": 1})
    assert (reader.expire(), reader.pending, reader.frames) == ([], False, 1)


def test_other_channels_can_be_served() -> None:
    reader = FrameReader(channels=CHANNELS | {4})
    assert reader.feed(build_frame(b"\x04smp")) == [b"\x04smp"]


def test_the_sample_of_rejected_segments_is_bounded() -> None:
    reader = FrameReader()
    for number in range(50):
        reader.feed(bytes((0xFF, number | 1)) * 200 + b"\0")
    assert len(reader.sample) == 8
    assert reader.sample[-1] == ("bad_cobs", bytes((0xFF, 49)) * 32)


# --- Text and SMP lines


def test_text_and_smp_lines_travel_between_frames() -> None:
    first, second = content_of(10, 1), content_of(300, 2)
    smp = b"\x06\x09AAsAAAABAAYAAb+A\n"
    stream = "boot 1\r\nWärme 21,5 °C\n".encode() + build_frame(first) + smp + b"\x04\x14more\r\n\x1b[31mred\x1b[0m\n"
    stream += build_frame(second) + b"unfinished"
    for cut in (whole, byte_by_byte):
        reader = FrameReader()
        assert read_all(reader, cut(stream)) == [first, second]
        assert reader.take_text() == ["boot 1", "Wärme 21,5 °C", "\x1b[31mred\x1b[0m", "unfinished"]
        assert reader.take_smp() == [smp, b"\x04\x14more\r\n"]
        assert rejections(reader) == {}
        assert (reader.take_text(), reader.take_smp()) == ([], [])


def test_smp_lines_wait_for_no_delimiter_and_may_go_on_for_ever() -> None:
    reader = FrameReader()
    for number in range(300):
        reader.feed(b"\x06\x09" + b"%d" % number * 10 + b"\n")
        assert reader.take_smp() == [b"\x06\x09" + b"%d" % number * 10 + b"\n"]
    assert not reader.pending


def test_smp_lines_within_what_is_rejected_are_handed_on() -> None:
    reader = FrameReader()
    reader.feed(b"\xfe\xfe\n\x06\x09line\nrest\0")
    assert (reader.take_smp(), reader.take_text(), rejections(reader)) == ([b"\x06\x09line\n"], [], {"bad_cobs": 1})


@pytest.mark.parametrize("bad", [b"\x01", b"\x7f", b"\xff", b"\xc3", b"\xc2\x85", b"\xed\xa0\x80", b"\x08"])
def test_one_byte_that_is_no_text_rejects_its_whole_segment(bad: bytes) -> None:
    reader = FrameReader()
    reader.feed(b"good line\nbad " + bad + b" line\n\0next\n\0")
    assert (reader.take_text(), rejections(reader)) == (["next"], {"bad_cobs": 1})


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_a_board_that_prints_without_frames_is_heard(cut: Any) -> None:
    lines = [f"line {number} of a long banner" for number in range(500)]
    reader = FrameReader()
    for piece in cut("\n".join(lines).encode()):
        reader.feed(piece)
    heard = reader.take_text()
    assert heard == lines[: len(heard)]
    assert len(heard) > 400
    reader.expire()
    assert heard + reader.take_text() == lines
    assert rejections(reader) == {}


def test_a_line_longer_than_any_frame_is_too_long() -> None:
    reader = FrameReader()
    reader.feed(b"x" * 5000 + b"\nnext\n\0")
    assert (reader.take_text(), rejections(reader)) == ([], {"too_long": 1})


def test_lines_nobody_takes_are_bounded_and_counted() -> None:
    reader = FrameReader()
    for number in range(5000):
        reader.feed(b"line %d\n\0\x06\x09%d\n" % (number, number))
    text, smp = reader.take_text(), reader.take_smp()
    assert (text[-1], smp[-1]) == ("line 4999", b"\x06\x094999\n")
    assert len(text) + reader.text_lines_dropped == 5000
    assert len(smp) + reader.smp_lines_dropped == 5000
    assert sum(map(len, text)) < 65536


# --- Anything at all

PIECE = st.one_of(
    st.binary(max_size=40),
    st.binary(min_size=1, max_size=400).map(lambda payload: build_frame(b"\x01" + payload)),
    st.binary(min_size=250, max_size=252).map(lambda payload: build_frame(b"\x02" + payload.replace(b"\0", b"\1"))),
    st.binary(max_size=30).map(lambda payload: cobs.encode(sealed(payload)) + b"\0"),
    st.sampled_from([b"\0", b"\n", b"\x06\x09", b"\x04\x14", b"\x06\x09abc\n", b"text\r\n", b"\xc3\xa4", b"x" * 150]),
)
STREAM = st.lists(PIECE, max_size=12).map(b"".join)


class Sorted(msgspec.Struct):
    """What should come out of a stream."""

    contents: list[bytes] = []
    text: list[str] = []
    smp: list[bytes] = []
    rejected: Counter[str] = msgspec.field(default_factory=Counter)


def model(stream: bytes, cap: int) -> Sorted:
    """The wire's rules, one after the other, with the cobs package and no thought for speed."""
    out = Sorted()
    longest = cap + 4 + 1 + (cap + 4) // 254
    segments = stream.split(b"\0")
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        while segment[:2] in (b"\x06\x09", b"\x04\x14") and b"\n" in segment[:longest]:
            line, _, segment = segment.partition(b"\n")
            out.smp.append(line + b"\n")
        while len(segment) > longest:
            cut = segment[:longest].rpartition(b"\n")[0]
            lines = model_lines(cut + b"\n", out) if b"\n" in segment[:longest] else False
            if not lines:
                out.rejected["too_long"] += 1
                segment = b""
                break
            segment = segment[len(cut) + 1 :]
            while segment[:2] in (b"\x06\x09", b"\x04\x14") and b"\n" in segment[:longest]:
                line, _, segment = segment.partition(b"\n")
                out.smp.append(line + b"\n")
        if not segment:
            continue
        try:
            raw = cobs.decode(segment)
            reason = "" if sealed(raw[:-4]) == raw else "bad_crc"
            reason = "too_short" if len(raw) < 5 else reason
        except cobs.DecodeError:
            reason = "bad_cobs"
        if reason:
            if not model_lines(segment, out):
                out.rejected["timeout" if last else reason] += 1
        elif len(raw) > cap + 4:
            out.rejected["too_long"] += 1
        elif raw[0] not in CHANNELS:
            out.rejected["unknown_channel"] += 1
        else:
            out.contents.append(raw[:-4])
    return out


def model_lines(segment: bytes, out: Sorted) -> bool:
    rest_lines = []
    parts = segment.split(b"\n")
    for number, line in enumerate(parts):
        if line[:2] in (b"\x06\x09", b"\x04\x14") and number < len(parts) - 1:
            out.smp.append(line + b"\n")
        else:
            rest_lines.append(line)
    try:
        texts = [line.decode() for line in rest_lines]
    except UnicodeDecodeError:
        return False
    if any((ord(c) < 0x20 and c not in "\t\r\x1b") or 0x7F <= ord(c) < 0xA0 for text in texts for c in text):
        return False
    out.text += [text.removesuffix("\r") for text in texts if text.removesuffix("\r")]
    return True


@given(stream=STREAM, cap=st.sampled_from([1, 20, 100, 250, 300, 2048]), seed=st.integers(0, 1000))
def test_any_stream_however_cut_is_sorted_as_the_model_sorts_it(stream: bytes, cap: int, seed: int) -> None:
    wanted = model(stream, cap)
    for pieces in (whole(stream), byte_by_byte(stream), in_pieces(stream, seed, 50)):
        reader = FrameReader(content_bytes_max=cap)
        assert read_all(reader, pieces) == wanted.contents
        assert (reader.take_text(), reader.take_smp()) == (wanted.text, wanted.smp)
        assert rejections(reader) == dict(wanted.rejected)
        assert not reader.pending


@given(before=STREAM, between=STREAM, after=STREAM, one=st.binary(max_size=300), two=st.binary(max_size=300))
def test_no_garbage_keeps_a_whole_frame_from_arriving(
    before: bytes, between: bytes, after: bytes, one: bytes, two: bytes
) -> None:
    frame, next_frame = build_frame(b"\x02" + one), build_frame(b"\x03" + two)
    arrived = read_all(FrameReader(), whole(before + frame + between + next_frame + after))
    assert b"\x02" + one in arrived
    assert b"\x03" + two in arrived[arrived.index(b"\x02" + one) :]


# --- Flood

RANDOM = random.Random(3).randbytes(4096)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"\xfe" * 4096, id="no delimiter"),
        pytest.param(bytes(4096), id="delimiters only"),
        pytest.param(b"x\0" * 2048, id="one letter a segment"),
        pytest.param(b"\xfe\0" * 2048, id="one bad byte a segment"),
        pytest.param(b"\x06\x09\n" * 1365, id="smp lines"),
        pytest.param(b"\n" * 4096, id="line feeds"),
        pytest.param(b"text\n" * 800, id="text"),
        pytest.param(b"x" * 4096, id="one endless line"),
        pytest.param(RANDOM, id="noise"),
        pytest.param(build_frames([content_of(60)] * 60), id="frames"),
    ],
)
def test_memory_is_flat_whatever_floods_in(piece: bytes) -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        for _ in range(50):
            reader.feed(piece)
        held, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            reader.feed(piece)
        held_later, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_later - held < 4096
    assert peak < 1_000_000


def test_a_megabyte_at_once_is_taken_in_pieces() -> None:
    content = content_of(900)
    stream = build_frames([content] * 1200)
    tracemalloc.start()
    try:
        reader = FrameReader()
        reader.feed(b"\xfe\0" * 100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_500_000
    assert FrameReader().feed(stream) == [content] * 1200
