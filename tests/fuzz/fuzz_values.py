"""Plain values of every shape, and the exchange of one value in others."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

TEXTS = st.one_of(
    st.sampled_from(
        ["", "..", "../up", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J", "x" * 9000, "~nosuchuser/a",
         "<script>", "uda-1", "none"]
    ),
    st.text(max_size=12),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**30), 2**64, 2**31, 0, 1, -1])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """The ways to every value in plain values."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    found = [(*path, key) for key, _ in items]
    return found + [place for key, inner in items for place in places(inner, (*path, key))]


def changed(make: Callable[[], Any]) -> st.SearchStrategy[Any]:
    """What `make` returns, anew each time, with one to three values exchanged; or anything."""
    ways = places(make())

    def exchange(changes: list[tuple[tuple[Any, ...], object]]) -> Any:  # noqa: ANN401
        found = make()
        for way, new in changes:
            at = found
            try:
                for step in way[:-1]:
                    at = at[step]
                at[way[-1]] = new
            except (LookupError, TypeError):  # it was in what has been exchanged
                continue
        return found

    pairs = st.tuples(st.sampled_from(ways), VALUES)
    return st.one_of(*[st.lists(pairs, min_size=1, max_size=3).map(exchange)] * 4, VALUES)
