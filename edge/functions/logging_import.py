"""AWS Lambda's root handler of `logging`, in a worker of Lambda's manner, when the code imports `logging`.

Lines have Lambda's shape and its level, WARNING, until the code sets another. They go to stderr, which is in the
function's log, and told when its process ends. `logging.basicConfig` takes its place, as in Greengrass v1, which had no
such handler; in Lambda it changes nothing.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

from edge.functions.lambda_ import current_request

_PYTHON: Final = os.path.dirname(os.__file__)
_FORMAT: Final = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"


class Finder:
    """Of `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Python's own `logging`; none of the code's."""
        if name != "logging":
            return None
        spec = PathFinder.find_spec(name)
        if spec is None or spec.origin != f"{_PYTHON}/logging/__init__.py":
            return None
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _add_root_handler(module)


def _add_root_handler(logging: Any) -> None:
    class Handler(logging.StreamHandler):  # type: ignore[misc]
        """Writes to what stderr is at that time."""

        def __init__(self) -> None:
            logging.Handler.__init__(self)

        @property
        def stream(self) -> Any:
            return sys.stderr

        def format(self, record: Any) -> str:
            record.aws_request_id = current_request.get()
            return super().format(record)  # type: ignore[no-any-return]

    handler = Handler()
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = logging.time.gmtime
    handler.setFormatter(formatter)
    logging.root.addHandler(handler)
    configure = logging.basicConfig

    def basicConfig(**settings: Any) -> None:  # noqa: N802 - its name there
        if logging.root.handlers == [handler]:
            logging.root.removeHandler(handler)
        configure(**settings)

    basicConfig.__doc__ = configure.__doc__
    logging.basicConfig = basicConfig
