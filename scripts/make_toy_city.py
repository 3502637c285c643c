"""Writes the toy city: python scripts/make_toy_city.py"""

from uda.commands.data.toy_city import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
