"""Scores a snapshot: python eval_single.py --restore-from snapshots/RUN/GTA5_40000.pth"""

from uda.commands.evaluate import main

if __name__ == "__main__":
    main()
