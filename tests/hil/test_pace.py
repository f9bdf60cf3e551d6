import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tools.hil.pace import STEP_S, Noise, Wire


def carried(wire: Wire, data: bytes, until_s: float = 1e9) -> bytes:
    """All of data through an otherwise idle wire, on a clock of its own."""
    out = b""
    now_s = 0.0
    while data or wire.next_s(now_s) is not None:
        room = wire.room()
        if room and data:
            wire.put(data[:room], now_s)
            data = data[room:]
        due_s = wire.next_s(now_s)
        assert due_s is not None
        now_s = max(now_s, due_s)
        if now_s > until_s:
            break
        out += wire.take(now_s)
    return out


@pytest.mark.parametrize("baud", [300, 9600, 115_200, 3_000_000])
def test_a_byte_arrives_with_its_last_bit_and_not_before(baud: int) -> None:
    wire = Wire(baud)
    wire.put(b"x", 5.0)
    assert wire.take(5.0 + 9.9 / baud) == b""
    assert wire.next_s(5.0) == pytest.approx(5.0 + 10 / baud, abs=1e-9)
    assert wire.take(5.0 + 10 / baud) == b"x"
    assert wire.next_s(6.0) is None


def test_a_short_frame_is_due_as_a_whole_when_its_last_bit_is() -> None:
    wire = Wire(1_000_000)
    wire.put(b"x" * 30, 1.0)
    assert wire.next_s(1.0) == pytest.approx(1.0 + 30 * 10e-6)


def test_a_long_burst_is_handed_on_in_steps() -> None:
    wire = Wire(3_000_000)
    wire.put(b"x" * wire.room(), 1.0)
    assert wire.next_s(1.0) == pytest.approx(1.0 + STEP_S)


def test_a_burst_in_pieces_takes_exactly_ten_bits_a_byte() -> None:
    wire = Wire(115_200)
    now_s, sent, got = 0.0, 0, 0
    while now_s < 60.0:
        room = wire.room()
        wire.put(b"x" * room, now_s)
        sent += room
        now_s += 0.000_7
        got += len(wire.take(now_s))
    assert got == pytest.approx(now_s * 11_520, abs=1)
    assert wire.counts.busy_s == pytest.approx(now_s, abs=0.001)
    assert sent == wire.counts.bytes_in == got + wire.room_bytes_max - wire.room()


def test_what_waits_beyond_the_bound_is_the_senders_to_keep() -> None:
    wire = Wire(115_200)
    assert wire.room() == 64
    wire.put(b"x" * 64, 0.0)
    assert wire.room() == 0
    wire.take(10 * 10 / 115_200)
    assert wire.room() == 10


def test_a_new_baud_rate_holds_from_the_next_byte() -> None:
    wire = Wire(9600)
    wire.put(b"ab", 0.0)
    assert wire.take(10 / 9600) == b"a"
    wire.set_baud(1_000_000)
    assert wire.take(10 / 9600 + 9e-6) == b""
    assert wire.take(10 / 9600 + 10e-6) == b"b"


def test_delay_and_jitter_shift_bytes_and_keep_their_order() -> None:
    wire = Wire(115_200, seed="jitter")
    wire.set_noise(Noise(delay_ms=20, jitter_ms=30))
    data = bytes(range(256)) * 4
    assert carried(wire, data) == data
    wire.put(b"z", 100.0)
    assert wire.take(100.02) == b""
    assert wire.take(100.06) == b"z"


def test_delayed_bytes_still_come_when_the_delay_is_taken_away() -> None:
    wire = Wire(115_200)
    wire.set_noise(Noise(delay_ms=50))
    wire.put(b"a", 0.0)
    wire.take(0.001)
    wire.set_noise(Noise())
    wire.put(b"b", 0.001)
    assert wire.take(0.01) == b""
    assert wire.take(0.06) == b"ab"


def test_noise_has_the_rates_that_were_asked_for() -> None:
    wire = Wire(3_000_000, seed="rates")
    wire.set_noise(Noise(bit_errors=1e-3, byte_loss=2e-3, byte_insertion=3e-3))
    data = bytes(200_000)
    out = carried(wire, data)
    counts = wire.counts
    assert counts.bit_errors == pytest.approx(1_600, rel=0.15)
    assert counts.bytes_lost == pytest.approx(400, rel=0.25)
    assert counts.bytes_inserted == pytest.approx(600, rel=0.25)
    assert len(out) == len(data) - counts.bytes_lost + counts.bytes_inserted


def test_bit_errors_alone_flip_as_many_bits_as_are_counted() -> None:
    wire = Wire(3_000_000, seed="flips")
    wire.set_noise(Noise(bit_errors=1e-2))
    out = carried(wire, bytes(10_000))
    assert sum(byte.bit_count() for byte in out) == wire.counts.bit_errors > 0


@given(st.binary(min_size=1, max_size=300), st.sampled_from([Noise(), Noise(bit_errors=0.01, byte_loss=0.01)]))
def test_the_same_seed_gives_the_same_damage(data: bytes, noise: Noise) -> None:
    first, second = Wire(115_200, "s"), Wire(115_200, "s")
    first.set_noise(noise)
    second.set_noise(noise)
    assert carried(first, data) == carried(second, data)


@given(st.binary(min_size=1, max_size=600), st.sampled_from([300, 115_200, 3_000_000]))
def test_a_quiet_line_carries_everything_unchanged(data: bytes, baud: int) -> None:
    assert carried(Wire(baud), data) == data


def test_a_rate_of_one_loses_every_byte() -> None:
    wire = Wire(115_200)
    wire.set_noise(Noise(byte_loss=1.0))
    assert carried(wire, b"hello") == b""
    assert wire.counts.bytes_lost == 5


def test_clearing_drops_what_is_on_the_way() -> None:
    wire = Wire(115_200)
    wire.set_noise(Noise(delay_ms=100))
    wire.put(b"abc", 0.0)
    wire.take(10 / 115_200)
    assert wire.clear() == 3
    assert wire.next_s(1.0) is None
