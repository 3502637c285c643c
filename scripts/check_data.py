"""Checks data sets file by file: python scripts/check_data.py --data-root DIR"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.check")):
    sys.exit(status)
