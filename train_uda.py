"""Trains a preset: python train_uda.py --preset aagc_640x360_b2_student"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("train")):
    sys.exit(status)
