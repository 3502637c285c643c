"""Writes a snapshot from a file of another project: python scripts/convert_checkpoint.py IN OUT"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("convert")):
    sys.exit(status)
