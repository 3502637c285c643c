"""What the documents show is what the tests run, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "snapshots/README.md",
    REPOSITORY / "experiments/toy_ladder.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]


def test_the_additions_of_contributing_are_the_files_that_the_tests_run() -> None:
    shown = re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    examples = [file.read_text() for file in (REPOSITORY / "tests/examples").glob("*.py")]
    assert len(examples) == 3
    assert sorted(shown) == sorted(examples)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert missing == []


def test_the_index_names_every_page() -> None:
    folder = REPOSITORY / "docs"
    index = (folder / "index.md").read_text()
    left_out = {page.name for page in folder.glob("*.md") if f"({page.name})" not in index}
    assert left_out == {"index.md"}
