"""Writes the data set noonbody: see uda/commands/data/prepare_densepose.py"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.prepare_densepose")):
    sys.exit(status)
