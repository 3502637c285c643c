"""Writes the data set fashion5: see uda/commands/data/prepare_fashionpedia.py"""

from uda.commands.data.prepare_fashionpedia import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
