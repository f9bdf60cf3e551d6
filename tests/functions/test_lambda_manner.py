"""A handler as AWS Lambda runs it, in a worker's process."""

import re
from pathlib import Path

import pytest

from tests.functions.workers import worker

WRAPPED = """
    import asyncio, functools, json, threading

    def wrapped(run):
        @functools.wraps(run)
        def wrapper(event, context):
            assert threading.current_thread() is threading.main_thread()
            return {ran}
        return wrapper

    @wrapped
    async def handler(event, context):
        return await asyncio.sleep(0, "waited")
"""


@pytest.mark.parametrize(
    "ran",
    [
        "asyncio.run(run(event, context))",
        "asyncio.get_event_loop().run_until_complete(run(event, context))",
        "run(event, context)",
    ],
)
def test_a_lambda_handler_may_run_its_own_loop_or_give_a_coroutine(tmp_path: Path, ran: str) -> None:
    with worker(tmp_path, WRAPPED.format(ran=ran), handler="handler") as one:
        assert not one.ready().concurrent
        assert [one.done() for _ in range(2)] == [b"waited"] * 2


LOGGING = """
    {first}
    import logging
    logger = logging.getLogger()
    logging.getLogger("library").debug("not shown")
    logger.warning("first")

    {word}def handler(event, context):
        logger.setLevel(logging.INFO)
        logging.getLogger("library").info("seen %s", event)
        return context.aws_request_id
"""


@pytest.mark.parametrize(("first", "word"), [("", ""), ("import asyncio", ""), ("", "async ")])
def test_a_lambda_function_logs_as_in_aws_lambda(tmp_path: Path, first: str, word: str) -> None:
    with worker(tmp_path, LOGGING.format(first=first, word=word), handler="handler") as one:
        one.ready()
        request = (one.done(payload=b"5") or b"").decode()
        lines = one.output().splitlines()
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"\[WARNING\]\t{moment}\t\tfirst", lines[0])
    assert re.fullmatch(rf"\[INFO\]\t{moment}\t{request}\tseen 5", lines[1])
    assert len(lines) == 2


def test_a_function_of_another_manner_sets_up_its_own_logs(tmp_path: Path) -> None:
    code = """
        import logging
        from edge import on
        logging.basicConfig(format="mine %(message)s")

        @on("#")
        def handle(message): logging.warning("seen")
    """
    with worker(tmp_path, code) as one:
        one.ready()
        one.done()
        assert one.output() == "mine seen\n"


def test_a_lambda_function_finds_what_lies_beside_its_code(tmp_path: Path) -> None:
    code = """
        COLOUR = open("colour.txt").read()
        def handler(event, context): return COLOUR
    """
    (tmp_path / "colour.txt").write_text("red")
    with worker(tmp_path, code, handler="handler") as one:
        one.ready()
        assert one.done() == b"red"
