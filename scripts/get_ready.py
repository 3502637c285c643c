"""Says where a data set is to be had and what is there: python scripts/get_ready.py NAME"""

import sys

from uda.commands.data.get_ready import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        sys.exit(main())
