"""Predicts a folder of images: python predict.py --restore-from FILE --images DIR"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("predict")):
    sys.exit(status)
