"""What a function's workers print, as events with its name."""

import logging

from edge.functions.calls import Job
from edge.functions.child import Pipe
from edge.functions.figures import Figures
from edge.functions.invocation import Invocation
from edge.functions.output import Output
from edge.functions.slot import Slot
from edge.logs import log_event

_log = logging.getLogger(__name__)


class Lines:
    """Of one function."""

    def __init__(self, function: str, figures: Figures) -> None:
        self._function, self._figures = function, figures
        self._outputs: dict[tuple[Slot, Pipe], Output] = {}

    def printed(self, slot: Slot, pipe: Pipe, data: bytes, now: float) -> None:
        output = self._outputs.get((slot, pipe))
        if output is None:
            output = self._outputs[slot, pipe] = Output(now)
        self._tell(slot, pipe, output.feed(data, now))

    def ended(self, slot: Slot) -> None:
        """It prints no more."""
        for key in [key for key in self._outputs if key[0] is slot]:
            output = self._outputs.pop(key)
            self._tell(slot, key[1], output.finish())
            self._tell_dropped(output)

    def tell_dropped(self) -> None:
        """Called about once a second."""
        for output in self._outputs.values():
            self._tell_dropped(output)

    def _tell(self, slot: Slot, pipe: Pipe, lines: list[str]) -> None:
        if pipe == "stderr":
            slot.last_words.extend(lines)
        for line in lines:
            self._figures.lines.value += 1
            log_event(_log, "function_logged", function=self._function, pipe=pipe, line=line)
            for job in slot.in_flight.values():
                if isinstance(job.handle, Invocation):
                    job.handle.printed(line)

    def _tell_dropped(self, output: Output) -> None:
        if dropped := output.take_dropped():
            self._figures.lines_dropped.value += dropped
            log_event(_log, "function_lines_dropped", level=logging.WARNING, function=self._function, lines=dropped)


def tell_failure(function: str, job: Job, traceback: str = "") -> None:
    """A call failed. Told of a job's first and last attempt."""
    log_event(
        _log,
        "function_failed",
        level=logging.WARNING,
        function=function,
        kind=job.kind,
        topic=job.lane.partition("\0")[0][:200],
        attempt=job.attempt,
        error=job.error[:1000],
        traceback=traceback[-2000:],
    )
