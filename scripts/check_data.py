"""Checks data sets file by file: python scripts/check_data.py --data-root DIR"""

import sys

from uda.commands.data.check import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        sys.exit(main())
