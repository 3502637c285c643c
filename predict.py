"""Predicts a folder of images: python predict.py --restore-from FILE --images DIR"""

import sys

from uda.commands.predict import main

if __name__ == "__main__":
    if status := main():
        sys.exit(status)
