"""Scores a folder of label maps: python scripts/score_folder.py PREDICTIONS gtFine/val"""

from uda.commands.endings import clear_errors
from uda.commands.score import main

if __name__ == "__main__":
    with clear_errors():
        main()
