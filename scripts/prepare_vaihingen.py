"""Cuts ISPRS Vaihingen or Potsdam into tiles: see uda/commands/data/prepare_vaihingen.py"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.prepare_vaihingen")):
    sys.exit(status)
