"""The text of `edge status`: what a person asks first. All of it is in the JSON."""

from collections.abc import Iterator
from typing import Any, Final

_NO_ERRORS: Final = frozenset(
    {"frames_in", "frames_out", "readings_produced", "readings_acknowledged", "readings_held"}
    | {"commands_received", "commands_answered"}
)


def lines(status: dict[str, Any]) -> Iterator[str]:
    """status: as the control socket gives it, see runtime.Status."""
    yield f"gateway {status['gateway']} (edge {status['version']}), up {status['uptime_s']:.0f} s"
    for connection in status["connections"]:
        yield f"{connection['name']}: {_connection(connection)}"
    for board in status["boards"]:
        yield f"board {board['name']} on {board['port']}: {_board(board)}"
        if errors := _counted({name: n for name, n in board["counters"].items() if name not in _NO_ERRORS}):
            yield f"  its own errors: {errors}"
        if rejected := _counted(board["rejected"]):
            yield f"  refused of it: {rejected}"
    for client in status["clients"]:
        if client["id"] != client["link"]:
            held = f"{client['subscriptions']} subscriptions, {client['waiting']} waiting"
            yield f"client {client['id']} on {client['link']}: {client['state']}, {held}"
    for stream in status["streams"]:
        failing = f", commits fail: {stream['failing']}" if stream["failing"] else ""
        full = ", the disk is full" if stream["disk_full"] else ""
        held = f"{stream['backlog_records']} records to export, {stream['bytes']} bytes"
        yield f"stream {stream['name']}: {held}{failing}{full}"
    for function in status["functions"]:
        yield f"function {function['name']}: {_function(function)}"
    reload = status.get("reload", {})
    if refused := reload.get("refused"):
        yield f"the changed gateway file is refused: {refused}"
    if fields := reload.get("restart_needed"):
        yield f"the changed gateway file needs a restart for {', '.join(fields)}"
    for name, value in status["counters"].items():
        if value:
            yield f"  {name} {_number(value)}"


def _connection(connection: dict[str, Any]) -> str:
    queued = f"{connection['queued']} queued"
    if connection["connected"]:
        return f"connected, {queued}"
    if not connection["cause"]:
        return f"connecting, {queued}"
    return f"not connected, {queued}: {connection['problem']}. {connection['remedy']}"


def _board(board: dict[str, Any]) -> str:
    state = "connected" if board["connected"] else board["port_state"]
    if board["port_cause"]:
        state += f" ({board['port_cause']})"
    boot, last = board["boot"], board["last_sequence"]
    hello = f"boot {boot} ({board['reset_reason']}), firmware {board['firmware']}" if boot else "no hello yet"
    return f"{state}, {hello}, {'no reading yet' if last is None else f'last reading {last}'}"


def _function(function: dict[str, Any]) -> str:
    state = function["state"]
    if state == "backing_off":
        state = f"backing off, started again in {function['next_start_s']:g} s"
    p99 = "" if function["p99_ms"] is None else f", p99 {function['p99_ms']:g} ms"
    parts = [f"{state}, {function['calls']} calls{p99}, {function['backlog']} messages waiting"]
    shown = "errors", "timeouts", "retries", "dead_letters", "denied", "publishes_refused"
    if errors := _counted({name: function[name] for name in shown}):
        parts.append(errors)
    if attempts := function["attempts"]:
        more = f" and {len(attempts) - 1} more" if len(attempts) > 1 else ""
        parts.append(f"attempts: {attempts[-1]}{more}")
    if function["memory_bytes"]:
        parts.append(f"{function['memory_bytes'] / 1_048_576:.1f} MB")
    if function["last_error"]:
        parts.append(f"last error: {function['last_error']}")
    return ", ".join(parts)


def _counted(counters: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counters.items() if count)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
