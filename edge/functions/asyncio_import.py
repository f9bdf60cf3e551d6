"""asyncio without TLS, in a worker that is granted no network: a sixth of what it costs to import.

asyncio does without `ssl` where Python is built without; here it alone is told so. The code's own `import ssl` gives it
as ever, and code that imported it before asyncio is left alone.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

_IMPORT: Final = ("importlib._bootstrap", "importlib._bootstrap_external", "_frozen_importlib")


class Finder:
    """Of `sys.meta_path`, at its head."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Never one of its own."""
        if name != "ssl":
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__") in _IMPORT:
            frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith("asyncio."):
            raise ImportError("the function is granted no network", name=name)
