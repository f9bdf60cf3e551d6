"""EdgeLoop's gateway runtime. A function's code takes its names from here: `from edge import on, every, publish`."""

TYPE_CHECKING = False  # typing's own costs a megabyte; type checkers know the name
if TYPE_CHECKING:
    from edge.functions.api import Message as Message
    from edge.functions.api import PayloadInvalid as PayloadInvalid
    from edge.functions.api import Reading as Reading
    from edge.functions.api import RequestDenied as RequestDenied
    from edge.functions.api import RequestFailed as RequestFailed
    from edge.functions.api import ainvoke as ainvoke
    from edge.functions.api import apublish as apublish
    from edge.functions.api import every as every
    from edge.functions.api import invoke as invoke
    from edge.functions.api import on as on
    from edge.functions.api import publish as publish
    from edge.functions.api import secret as secret
    from edge.functions.api import shadow as shadow

__version__ = "0.1.0"

_FUNCTION_NAMES = frozenset(
    [
        "Message",
        "PayloadInvalid",
        "Reading",
        "RequestDenied",
        "RequestFailed",
        "ainvoke",
        "apublish",
        "every",
        "invoke",
        "on",
        "publish",
        "secret",
        "shadow",
    ]
)


def __getattr__(name: str) -> object:
    """Loaded when a function asks for it: the gateway's own modules pay nothing."""
    if name in _FUNCTION_NAMES:
        from edge.functions import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
