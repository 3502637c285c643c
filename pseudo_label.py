"""Labels target images: python pseudo_label.py --restore-from FILE --threshold 0.5"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("label")):
    sys.exit(status)
