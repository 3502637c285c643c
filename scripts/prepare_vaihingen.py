"""Cuts ISPRS Vaihingen or Potsdam into tiles: see uda/commands/data/prepare_vaihingen.py"""

from uda.commands.data.prepare_vaihingen import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
