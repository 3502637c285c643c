"""Drafts a TOML file that describes your data: python scripts/describe_dataset.py DIR"""

from uda.commands.data.describe import main
from uda.commands.endings import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main()
