"""Where the commands begin: Ctrl-C ends them without a traceback from the first moment on.

The imports of a command take longer than its work at times, and a KeyboardInterrupt within them is nobody's to catch.
So while they last Ctrl-C ends the process as it would end one that knows no signals.
"""

import signal
from importlib import import_module

DONE = 0


def start(module: str) -> int:
    """Run the command whose `main` is there. Returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code: int = main()
    except KeyboardInterrupt:
        return DONE
    return code


def edge() -> int:
    return start("edge.cli")
