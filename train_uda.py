"""Trains a preset: python train_uda.py --preset aagc_640x360_b2_student"""

from uda.commands.train import main

if __name__ == "__main__":
    main()
