"""Says where a data set is to be had and what is there: python scripts/get_ready.py NAME"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.get_ready")):
    sys.exit(status)
