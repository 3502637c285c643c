"""Drafts a TOML file that describes your data: python scripts/describe_dataset.py DIR"""

import sys

from uda.commands.program import run

if __name__ == "__main__" and (status := run("data.describe")):
    sys.exit(status)
