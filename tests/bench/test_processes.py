"""What a bench weighs."""

import os
import signal
import subprocess

from tests.bench.processes import cpu_s, family, pss_mb


def test_the_family_of_a_process_is_itself_and_all_that_descends_from_it() -> None:
    command = "sleep 60 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", f"sh -c '{command}'; true"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        found = family(process.pid)
        assert len(found) == 3
        assert (found[0], found[-1]) == (process.pid, grandchild)
        assert all(pss_mb(one) > 0 and cpu_s(one) >= 0 for one in found)
        os.kill(grandchild, signal.SIGKILL)
