"""Scores a snapshot: python eval_single.py --restore-from snapshots/RUN/GTA5_40000.pth"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("evaluate")):
    sys.exit(status)
