"""Scores a folder of label maps: python scripts/score_folder.py PREDICTIONS gtFine/val"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("score")):
    sys.exit(status)
