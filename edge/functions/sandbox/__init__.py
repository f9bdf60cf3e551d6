"""What holds a function: its limits, its own folder, its end.

`spawn` starts a program within a `Sandbox`; `contained_by` says what of it holds on this machine, and by what means."""

from edge.functions.sandbox.child import Child, Ending
from edge.functions.sandbox.contained import contained_by
from edge.functions.sandbox.folder_watch import FolderFull
from edge.functions.sandbox.groups import ControlGroups
from edge.functions.sandbox.limits import Containment, Held
from edge.functions.sandbox.refusals import Refused
from edge.functions.sandbox.settings import NotHeld, Sandbox, SandboxError, number_of
from edge.functions.sandbox.spawn import spawn

__all__ = [
    "Child",
    "Containment",
    "ControlGroups",
    "Ending",
    "FolderFull",
    "Held",
    "NotHeld",
    "Refused",
    "Sandbox",
    "SandboxError",
    "contained_by",
    "number_of",
    "spawn",
]
