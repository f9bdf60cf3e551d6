"""`python -I -S edge/functions/launch/__main__.py ORDER_FD NICENESS`."""

import os
import sys

if __name__ == "__main__":
    os.nice(int(sys.argv[2]))  # before anything else that takes time
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # when it wakes it does not push the gateway aside
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))
    from edge.functions.launch.steps import main

    main(int(sys.argv[1]))
