from edge_tools.demo.tally import Mean, Result, Tally


def named(thing: str, boot: int, sequence: int) -> list[tuple[str, str]]:
    return [("thing", thing), ("boot", str(boot)), ("seq", str(sequence))]


def test_a_reading_seen_twice_is_one_reading_and_one_repeat() -> None:
    tally = Tally(["board1", "board2"])
    for sequence in (1, 2, 2, 3):
        tally.add_reading(b'{"c":21.5000,"up_ms":1}', named("board1", 7, sequence))
    tally.add_reading(b'{"c":-3.2500,"up_ms":1}', named("board2", 7, 1))
    assert (tally.received("board1"), tally.boards["board1"].repeated) == (3, 1)
    assert (tally.received("board2"), tally.boards["board2"].temperature_c) == (1, -3.25)


def test_the_same_sequence_of_another_boot_is_another_reading() -> None:
    tally = Tally(["board1"])
    tally.add_reading(b'{"c":1}', named("board1", 1, 1))
    tally.add_reading(b'{"c":1}', named("board1", 2, 1))
    assert tally.received("board1") == 2


def test_what_names_no_reading_of_a_known_board_is_a_stranger() -> None:
    tally = Tally(["board1"])
    for payload, properties in (
        (b'{"c":1}', []),
        (b'{"c":1}', named("board9", 1, 1)),
        (b'{"c":1}', [("thing", "board1"), ("boot", "x"), ("seq", "1")]),
        (b"not json", named("board1", 1, 1)),
        (b'{"t":1}', named("board1", 1, 1)),
    ):
        assert tally.add_reading(payload, properties) is None
    assert (tally.strangers, tally.received("board1")) == (5, 0)


def row(board: str, from_ms: int, average: float, highest: float, many: int) -> bytes:
    return b'{"board":"%s","c_avg":%g,"c_max":%g,"n":%d,"from_ms":%d}' % (
        board.encode(),
        average,
        highest,
        many,
        from_ms,
    )


def test_windows_of_the_rule_fit_when_they_hold_just_what_the_readings_say() -> None:
    tally = Tally(["board1", "board2"])
    for sequence, celsius in enumerate((20, 21, 25), 1):
        tally.add_reading(b'{"c":%d,"up_ms":1}' % celsius, named("board1", 7, sequence))
    assert not tally.means_fit("board1")
    assert tally.means_fit("board2")
    for _ in range(2):  # what comes twice is one window
        tally.add_mean(row("board1", 0, 20.5, 21, 2))
    tally.add_mean(row("board1", 2000, 25, 25, 1))
    assert tally.in_means("board1") == 3
    assert tally.means_fit("board1")
    assert tally.boards["board1"].last_mean == Mean("board1", 25, 25, 1, 2000)
    tally.add_mean(row("board1", 4000, 25, 26, 1))
    assert not tally.means_fit("board1")


def test_a_row_of_no_known_board_is_a_stranger() -> None:
    tally = Tally(["board1"])
    for payload in (b"", b"{}", row("board9", 0, 1, 1, 1)):
        tally.add_mean(payload)
    assert tally.strangers == 3


def test_a_result_of_the_function_is_right_when_its_reading_came_and_it_fits() -> None:
    tally = Tally(["board1"])
    tally.add_reading(b'{"c":20.5}', named("board1", 7, 1))
    for result in (b'{"f":68.9,"boot":7,"seq":1}', b'{"f":68.9,"boot":7,"seq":1}', b'{"f":70,"boot":7,"seq":2}'):
        tally.add_result("board1", result)
    assert tally.right_results("board1") == 1
    tally.add_reading(b'{"c":30}', named("board1", 7, 2))
    assert tally.right_results("board1") == 1
    tally.add_result("board1", b'{"f":86,"boot":7,"seq":2}')
    assert tally.right_results("board1") == 2
    for thing, payload in (("board9", b'{"f":1,"boot":1,"seq":1}'), ("board1", b"{}")):
        tally.add_result(thing, payload)
    assert tally.strangers == 2


def test_an_answer_is_matched_by_its_correlation_data_once() -> None:
    tally = Tally(["board1"])
    command = tally.add_command(b"\x01", "board1", "ping", 10.0)
    tally.add_answer(b"\x02", b"of no command", 10.1)
    tally.add_answer(b"\x01", b"hello", 10.25)
    tally.add_answer(b"\x01", b"again", 11.0)
    assert (command.answer, command.took_ms) == (b"hello", 250.0)
    assert (tally.boards["board1"].sent, tally.boards["board1"].answered) == (1, 1)


def result(**changed: float | None) -> Result:
    values: dict[str, float | None] = {
        "readings_produced": 40,
        "readings_received": 40,
        "readings_visible": 40,
        "readings_visible_twice": 0,
        "readings_shed": 0,
        "commands_sent": 9,
        "commands_answered": 9,
        "temperature_set_c": 31.25,
        "temperature_seen_c": 31.25,
        "rule_windows": 20,
        "rule_readings": 40,
        "function_calls": 40,
        "function_results_received": 40,
        **changed,
    }
    return Result(boards=2, readings_repeated=0, frames_rejected=0, **values)  # type: ignore[arg-type]


def test_all_arrived_and_the_set_value_seen_is_no_failure() -> None:
    assert result().failures() == []
    assert result(temperature_seen_c=31.2).failures() == []


def test_each_thing_that_went_wrong_is_a_failure_in_words() -> None:
    assert result(readings_received=39, readings_visible=39).failures() == ["39 of 40 readings arrived"]
    assert result(readings_visible=39).failures() == ["39 of 40 readings are shown"]
    assert result(readings_visible_twice=1).failures() == ["1 readings are shown more than once"]
    assert result(readings_shed=2).failures() == ["2 readings were shed"]
    nothing = result(
        readings_produced=0, readings_received=0, readings_visible=0, rule_readings=0, function_results_received=0
    )
    assert nothing.failures() == ["0 of 0 readings arrived"]
    assert result(rule_readings=39).failures() == ["20 windows of the rule came, with 39 of 40 readings in them"]
    for calls, results in ((40, 39), (0, 40)):
        assert result(function_calls=calls, function_results_received=results).failures() == [
            f"{results} right results of the function came for 40 readings, by {calls} calls"
        ]
    assert result(rule_windows=0, rule_readings=0).failures() == [
        "0 windows of the rule came, with 0 of 40 readings in them"
    ]
    assert result(commands_answered=8).failures() == ["8 of 9 commands were answered"]
    assert result(temperature_seen_c=None).failures() == ["the sensor was set to 31.25 °C, seen was None"]
    assert result(temperature_seen_c=22.0).failures() == ["the sensor was set to 31.25 °C, 22.0 °C was seen"]


def test_the_result_has_exactly_the_keys_of_the_json_object() -> None:
    assert Result.__struct_fields__ == (
        "boards",
        "readings_produced",
        "readings_received",
        "readings_repeated",
        "readings_visible",
        "readings_visible_twice",
        "readings_shed",
        "commands_sent",
        "commands_answered",
        "frames_rejected",
        "temperature_set_c",
        "temperature_seen_c",
        "rule_windows",
        "rule_readings",
        "function_calls",
        "function_results_received",
    )
