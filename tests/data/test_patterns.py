"""Patterns are matched in a time that grows with the length of a path alone."""

import re
from random import Random

import pytest

from uda.data import patterns
from uda.data.patterns import Pattern
from uda.utilities.errors import InputError

PIECES = ("a", "b", "ab", "/", "/", "*", "?", "**", "**/", "{name}")


def test_both_ways_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random, matched = Random(0), 0
    for _ in range(4000):
        text = "".join(random.choices(PIECES, k=random.randint(1, 8)))
        try:
            pattern = Pattern(text, "images")
        except InputError:
            continue
        path = "".join(random.choices("aaabbb//\n", k=random.randint(0, 9)))
        monkeypatch.setattr(patterns, "_MOST_STEPS", 2**60)
        expected = pattern.match(path, "train")
        monkeypatch.setattr(patterns, "_MOST_STEPS", 0)
        assert pattern.match(path, "train") == expected, (text, path)
        matched += expected is not None
    assert matched > 100


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("images/*a*a*a*a*a*a*ab.png", "images/" + "a" * 4000 + ".png"),
        ("**/**/*a*a*a*a*ab", "a/" * 2000 + "a" * 90),
        ("{name}**/*a*a*a*ab", "a/" * 2000),
        ("?*?*?*?*b", "a" * 4000),
    ],
)
def test_hostile_patterns_end_soon(text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(re, "fullmatch", None)  # it would take minutes
    assert Pattern(text, "images").match(path, "train") is None


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"images is 'images//.*'; allowed: single slashes"):
        Pattern("images//*.png", "images")
