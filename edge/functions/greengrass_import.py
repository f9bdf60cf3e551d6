"""`import greengrasssdk` gives `edge.functions.greengrass`, in a worker alone, and only when the code asks for it.

It goes before a copy of the SDK that lies beside the code, as Greengrass v1's packages have one: that one would look
for a Greengrass core.
"""

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

_PACKAGE: Final = "greengrasssdk"
_MODULES: Final = ("IoTDataPlane", "Lambda", "SecretsManager")


class Finder:
    """Of `sys.meta_path`; the loader as well."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package != _PACKAGE:
            return None
        if module and module not in _MODULES:
            raise ImportError(f"{name} is not among what EdgeLoop gives: {', '.join(_MODULES)}", name=name)
        return ModuleSpec(name, cls(), is_package=not module)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from edge.functions import greengrass

        part = module.__name__.partition(".")[2]
        module.__dict__.update(greengrass.MODULES[part])
