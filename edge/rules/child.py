"""Asks the parser's child for plans: the one door to it."""

import subprocess
import sys
from collections.abc import Sequence

import msgspec

from edge.rules.plan import Answer, Mistake

_TIMEOUT_S = 60


def parse_rules(texts: Sequence[str]) -> list[Answer]:
    """One answer a text, in order. Never raises for what the texts hold."""
    if not texts:
        return []
    answers = _ask(texts)
    if answers is None and len(texts) > 1:  # one of them brought the child down: find which
        return [(_ask([text]) or [_BROKEN])[0] for text in texts]
    return answers or [_BROKEN]


_BROKEN = Answer(mistake=Mistake(1, 1, "brings the parser down", "A shorter, plainer rule"))


def _ask(texts: Sequence[str]) -> list[Answer] | None:
    try:
        asked = msgspec.json.encode(list(texts))
        done = subprocess.run(
            [sys.executable, "-m", "edge.rules.sql.parse"],
            input=asked,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return msgspec.json.decode(done.stdout, type=list[Answer])
    except (msgspec.MsgspecError, subprocess.TimeoutExpired, UnicodeEncodeError):
        return None
