"""python -m uda COMMAND: as the installed command `uda`."""

import sys

from uda.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
