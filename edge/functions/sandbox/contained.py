"""What holds a function on this machine: found out by starting one that does nothing."""

import sys
import tempfile

from edge.functions.sandbox.groups import ControlGroups
from edge.functions.sandbox.limits import Containment
from edge.functions.sandbox.settings import Sandbox
from edge.functions.sandbox.spawn import spawn


async def contained_by(groups: ControlGroups | None, without: frozenset[str] = frozenset()) -> Containment:
    """For the limits as they are by default. Raises SandboxError when not even that can be started."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
        sandbox = Sandbox(name="probe", folder=f"{folder}/work", cpu_percent_max=50, without=without)
        child = await spawn(sandbox, [sys.executable, "-I", "-S", "-c", "pass"], groups=groups)
        await child.wait()
    return child.containment
