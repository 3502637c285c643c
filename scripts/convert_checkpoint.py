"""Writes a snapshot from a file of another project: python scripts/convert_checkpoint.py IN OUT"""

from uda.commands.convert import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
