"""A function's code as it was loaded, and how a call becomes calls of its handlers."""

import importlib
import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

from edge.functions import api, wire
from edge.functions.handlers import Handler, Registry, is_async_itself
from edge.functions.lambda_ import Context, current_request, event_of
from edge.messages import Properties

_ENTRIES: Final = ("main", "function", "lambda_function")
_NO_PROPERTIES: Final = Properties()


class HandlerMissing(Exception):
    """The code has no handler for this."""


Step = tuple[Handler, tuple[Any, ...]]


class Program:
    """Loaded once; `steps` is pure, but for the name of the request that logs carry."""

    def __init__(self, settings: wire.Configure, registry: Registry, handler: Handler | None) -> None:
        """handler: of Lambda's manner, instead of the registry's."""
        self._settings = settings
        self._registry = registry
        self._lambda = handler
        self.handlers = [handler] if handler is not None else registry.handlers()

    def ready(self) -> wire.Ready:
        concurrent = any(handler.is_async for handler in self.handlers)
        if self._lambda is not None:
            return wire.Ready(takes_all=True, concurrent=concurrent)
        name_max = wire.NAME_CHARACTERS_MAX
        return wire.Ready(
            filters=tuple(dict.fromkeys(topic_filter for topic_filter, _ in self._registry.subscribed)),
            schedules=tuple(
                wire.Schedule(number, handler.name[:name_max], interval)
                for number, (interval, handler) in enumerate(self._registry.scheduled)
            ),
            concurrent=concurrent,
        )

    def steps(self, call: wire.Call) -> list[Step]:
        """What to run, in order, with what; the deadline runs from now. Raises HandlerMissing."""
        deadline = time.monotonic() + call.deadline_s
        if self._lambda is not None:
            event = event_of(call, self._settings.name)
            context = Context(call, self._settings, deadline)
            current_request.set(context.aws_request_id)
            return [(self._lambda, (event, context))]
        message = api.Message(
            call.topic,
            call.payload,
            call.client,
            call.reading,
            call.time_ms,
            call.attempt,
            call.kind,
            call.properties or _NO_PROPERTIES,
            deadline,
        )
        return [(one, (message,) if one.takes_message else ()) for one in self._taking(call)]

    def _taking(self, call: wire.Call) -> tuple[Handler, ...]:
        if call.kind == "schedule":
            if 0 <= call.schedule < len(self._registry.scheduled):
                return (self._registry.scheduled[call.schedule][1],)
            raise HandlerMissing(f"no schedule {call.schedule}")
        if found := self._registry.taking(call.topic):
            return found
        if call.kind == "invoke" and not call.topic and len(self.handlers) == 1:
            return (self.handlers[0],)
        raise HandlerMissing(f"no handler takes the topic {call.topic[:200]!r}")


def load(settings: wire.Configure, registry: Registry) -> Program:
    """Import the code, which fills the registry. Raises whatever the code raises; ImportError and TypeError for what is
    not as the settings say."""
    folder, file = _place(settings.file)
    sys.path[:0] = [folder, settings.site] if settings.site else [folder]
    module_name, _, function = settings.handler.rpartition(".")
    if settings.handler:
        module = _import(module_name) if module_name and module_name != _stem(file) else _main(folder, file)
        handler = Handler.__new__(Handler)
        handler.run = _find(module, function)
        handler.name, handler.is_async, handler.takes_message = settings.handler, is_async_itself(handler.run), True
        if registry.handlers():
            raise TypeError("the code has @on or @every, and the gateway file a handler as well: leave one out")
        return Program(settings, registry, handler)
    _main(folder, file)
    if not registry.handlers():
        raise ImportError("the code has neither @on nor @every; for Lambda's manner say handler = 'module.function'")
    if len(registry.subscribed) > wire.HANDLERS_MAX or len(registry.scheduled) > wire.HANDLERS_MAX:
        raise ImportError(f"more than {wire.HANDLERS_MAX} handlers")
    return Program(settings, registry, None)


def _place(path: str) -> tuple[str, str]:
    """The folder of the code, and the file to begin with; empty when a folder does not say."""
    if not os.path.isdir(path):
        return os.path.dirname(path), path
    for entry in _ENTRIES:
        if os.path.isfile(file := os.path.join(path, f"{entry}.py")):
            return path, file
    files = sorted(name for name in os.listdir(path) if name.endswith(".py"))
    return path, os.path.join(path, files[0]) if len(files) == 1 else ""


def _stem(file: str) -> str:
    return os.path.basename(file).removesuffix(".py")


def _main(folder: str, file: str) -> ModuleType:
    """A file may have any name, also that of a module of Python's own."""
    if not file:
        raise ImportError(f"{folder}: which file? Name one main.py, or say handler = 'module.function'")
    name = _stem(file)
    if name in sys.stdlib_module_names:
        sys.meta_path.insert(0, _Standard(name, folder))
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"function_{name}"
    loader = SourceFileLoader(name, file)
    spec = ModuleSpec(name, loader, origin=file)
    spec.has_location = True
    module = ModuleType(name)
    module.__spec__, module.__loader__, module.__file__ = spec, loader, file
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Standard:
    """Of `sys.meta_path`: the name is that of Python's own module, whoever imports it, not of the file in this
    folder."""

    def __init__(self, name: str, folder: str) -> None:
        self._name, self._folder = name, folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        return PathFinder.find_spec(name, [place for place in sys.path if place != self._folder])


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _find(module: ModuleType, function: str) -> Any:
    found = getattr(module, function, None)
    if not callable(found):
        raise ImportError(f"{module.__name__} has no function {function!r}")
    return found
