"""Writes the toy city: python scripts/make_toy_city.py"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.toy_city")):
    sys.exit(status)
