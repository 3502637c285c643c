"""Prints the oldest version of every package that pyproject.toml admits, as constraints for pip.

python scripts/oldest_versions.py > oldest.txt && pip install -c oldest.txt .

`make test-oldest` installs them, so what is tested and what pyproject.toml says cannot differ.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest(text: str) -> Iterator[str]:
    """`name==version` for each `name>=version` in the dependencies and extras of a pyproject.toml.

    Requirements without a lower bound, such as type stubs, are left to pip.
    """
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (entry for group in groups for entry in group):
        if bound := re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement):
            yield "==".join(bound.groups())


if __name__ == "__main__":
    print("\n".join(oldest(PYPROJECT.read_text("utf-8"))))
