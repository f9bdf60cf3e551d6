"""The error tree. `code` never changes once released: it is the metric label and the reason given to people.

EdgeLoopError
├── ConfigError           wrong configuration: stop at start, exit 78
├── TransientError        the outside is not there just now: retry with jittered backoff
│   └── ConnectionFailed  with the cause and the remedy
└── InputRejected         bad bytes, topics, documents: count, keep a sample, never retry
"""


class EdgeLoopError(Exception):
    """Root of all that EdgeLoop raises on purpose."""

    code = "error"


class ConfigError(EdgeLoopError):
    """file: which file; field: dotted path within it ('' for the whole); fix: what to do."""

    code = "config"

    def __init__(self, file: str, field: str, problem: str, fix: str) -> None:
        self.file, self.field, self.problem, self.fix = file, field, problem, fix
        place = f"{file}: {field}" if field else file
        super().__init__(f"{place}: {problem}. {fix}")


class TransientError(EdgeLoopError):
    """Worth trying again later."""

    code = "transient"


class ConnectionFailed(TransientError):
    """cause: a stable word for the metric label; remedy: what a person can do about it."""

    code = "connection_failed"

    def __init__(self, cause: str, problem: str, remedy: str) -> None:
        self.cause, self.problem, self.remedy = cause, problem, remedy
        super().__init__(f"{problem}. {remedy}")


class InputRejected(EdgeLoopError):
    """reason: a stable word for the metric label, such as `bad_crc`; detail: for people."""

    code = "input_rejected"

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)
