"""Writes the data set fashion5: see uda/commands/data/prepare_fashionpedia.py"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.prepare_fashionpedia")):
    sys.exit(status)
