"""EdgeLoop's gateway runtime. A function's code takes its names from here: `from edge import on, every, publish`."""

TYPE_CHECKING = False  # typing's own costs a megabyte; type checkers know the name
if TYPE_CHECKING:
    from edge.functions.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """What `edge.functions.api` names, loaded when a function asks for it: the gateway's own modules pay nothing."""
    if not name.startswith("_"):
        from edge.functions import api

        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
