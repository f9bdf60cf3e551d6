"""Functions that mean harm. Each bounds itself too, so that the machine outlives a containment that fails.

Each is a Lambda-style `handler(event, context)`, and a program whose argument is the event as JSON; `schedules` has no
handler."""

from typing import Final

INVOKED: Final = """\
invoke = ["invoked"]

[[function]]
name = "invoked"
file = "{file}"
handler = "invoked"
"""


def handled(name: str, file: object, schedule: str = "") -> str:
    """The end of its section of the gateway file. schedule: the line of its handler's, if it has one."""
    if name == "schedules":
        return ""
    return f'handler = "handler"\n{schedule}' + (INVOKED.format(file=file) if name == "invokes" else "")
