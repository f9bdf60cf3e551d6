"""`python -I -S edge/functions/launch/__main__.py ORDER_FD`."""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))
    from edge.functions.launch.steps import main

    main(int(sys.argv[1]))
