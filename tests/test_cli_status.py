"""The text of `edge status`: what a person must see without asking for the JSON."""

from typing import Any

import msgspec

from edge.boards.board import BoardStatus
from edge.boards.gateway import ClientStatus
from edge.cli_status import lines
from edge.functions.figures import FunctionStatus
from edge.runtime import ConnectionStatus, Status

UP = ConnectionStatus("cloud", True, 1.0, "unreachable", "it was away", "Wait.", 0, 2)
BOARD = BoardStatus(
    name="b1", port="/dev/b1", port_state="open", port_cause="", client_id="b1", connected=True, client_state="active",
    boot=3, reading_boot=3, last_sequence=12, firmware="0.1.0", reset_reason="watchdog", uptime_ms=9_000, window=16,
    readings_under_way=0, counters={"frames_in": 40, "bad_crc": 2, "uart_overrun": 0, "readings_produced": 12},
    rejected={"bad_crc": 5},
)  # fmt: skip


def text(**changes: Any) -> str:
    whole = Status("g", "0.1.0", 1, 61.4, (UP,), (BOARD,), (), {})
    return "\n".join(lines(msgspec.to_builtins(msgspec.structs.replace(whole, **changes))))


def test_a_board_is_shown_with_boot_firmware_reset_reason_and_its_own_errors() -> None:
    shown = text()
    assert "board b1 on /dev/b1: connected, boot 3 (watchdog), firmware 0.1.0, last reading 12" in shown
    assert "its own errors: bad_crc 2" in shown
    assert "uart_overrun" not in shown, "what never happened is not told"
    assert "frames_in" not in shown, "what is no error is in the JSON"
    assert "refused of it: bad_crc 5" in shown


def test_a_board_that_was_never_heard_is_shown_with_why_its_port_is_closed() -> None:
    silent = msgspec.structs.replace(
        BOARD, port_state="closed", port_cause="not_found", connected=False, boot=None, last_sequence=None, counters={},
        firmware="", reset_reason="", rejected={},
    )  # fmt: skip
    assert "board b1 on /dev/b1: closed (not_found), no hello yet, no reading yet" in text(boards=(silent,))


def test_a_connection_that_is_down_is_shown_with_problem_and_remedy_and_one_that_is_up_without() -> None:
    down = msgspec.structs.replace(UP, connected=False, queued=7)
    assert "cloud: not connected, 7 queued: it was away. Wait." in text(connections=(down,))
    assert "cloud: connected, 0 queued" in text().splitlines()


def test_one_that_has_not_failed_yet_is_connecting() -> None:
    new = msgspec.structs.replace(UP, connected=False, cause="", problem="", remedy="")
    assert "cloud: connecting, 0 queued" in text(connections=(new,)).splitlines()


def test_clients_beside_the_boards_themselves_are_shown() -> None:
    clients = (ClientStatus("b1", "b1", "active", 1, 0), ClientStatus("meter-1", "udp", "asleep", 2, 3))
    shown = text(clients=clients)
    assert "client meter-1 on udp: asleep, 2 subscriptions, 3 waiting" in shown
    assert "client b1" not in shown


def test_counters_are_whole_numbers_however_large() -> None:
    assert "  stream_bytes 4194304" in text(counters={"stream_bytes": 4_194_304.0, "never": 0.0}).splitlines()
    assert "  lag_s 0.25" in text(counters={"lag_s": 0.25}).splitlines()


def test_what_a_function_tried_beyond_its_grants_is_shown() -> None:
    one = FunctionStatus(
        name="f", state="ready", calls=3, attempts=("files: open /a", "network: connect to 10.0.0.1:22")
    )
    assert "attempts: network: connect to 10.0.0.1:22 and 1 more" in text(functions=(one,))
    assert "attempts" not in text(functions=(msgspec.structs.replace(one, attempts=()),))
