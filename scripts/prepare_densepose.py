"""Writes the data set noonbody: see uda/commands/data/prepare_densepose.py"""

from uda.commands.data.prepare_densepose import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
