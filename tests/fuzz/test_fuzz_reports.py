"""What pages are made of: adapt.json of every shape, logs and summaries of runs."""

import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_bytes
from hypothesis import strategies as st

from adapted_folders import values, written
from report_pages import page_of
from uda.reports.adaptation import adapt_report
from uda.reports.run_files import FoundRun, Run
from uda.reports.run_page import run_page

TEXTS = st.one_of(
    st.sampled_from(
        ["<script>alert(1)</script>", '" onload="x', "../up", "\ud800", "\0", "x" * 9000,
         "{{ 7 * 7 }}", "</style><b>", "adapted", "better"]
    ),
    st.text(),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**30), 2**64, 0, 1]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """The ways to every value in plain values."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    deeper = [(path, key, inner) for key, inner in items]
    return [(*p, k) for p, k, _ in deeper] + [
        place for p, k, inner in deeper if isinstance(inner, dict | list)
        for place in places(inner, (*p, k))
    ]  # fmt: skip


PLACES = places(values())


# A place, and what may be put there: a text, a number, anything; of its own kind in two of three.
CHANGES = st.tuples(
    st.sampled_from(PLACES), TEXTS, st.one_of(st.floats(0, 1), NUMBERS), JSON, st.integers(0, 2)
)


@both_runs
def test_adaptations_with_one_odd_value(total: int, tmp_path: Path) -> None:
    tally, folder = Tally("adaptations, values"), written(tmp_path / "home" / "out")

    def check(change: tuple[tuple[Any, ...], str, object, object, int]) -> None:
        place, text, number, anything, choice = change
        found: Any = values()
        at = found
        for step in place[:-1]:
            at = at[step]
        old = at[place[-1]]
        of_kind = text if isinstance(old, str) else number
        at[place[-1]] = anything if choice == 2 or isinstance(old, dict | list) else of_kind
        (folder / "adapt.json").write_text(json.dumps(found))
        attempt(tally, folder.parent, lambda: page_of(adapt_report(folder)))

    drive(CHANGES, check, total // 10)
    print(tally)


@both_runs
def test_damaged_logs(total: int, tmp_path: Path) -> None:
    tally = Tally("logs, bytes")
    lines = [{"step": n, "loss/a/main": 1.0 / (n + 1), "lr": 0.1, "miou": 0.1, "iou/road": 0.2,
              "predicted/road": 0.3, "warning/kept": "it <b>learns</b> little"}
             for n in range(6)]  # fmt: skip
    whole = "\n".join(map(json.dumps, lines)).encode()
    run = Run("r", {"step": "5"}, "native", 5, 10.0, {"road": 20.0}, None)
    folder = tmp_path / "home" / "run"
    folder.mkdir(parents=True)
    for number in range(total // 10):
        (folder / "metrics.jsonl").write_bytes(mutated_bytes(whole, Random(number)))
        found = FoundRun(run, folder, None, {}, None)
        page = folder / "report.html"
        attempt(tally, folder.parent, lambda: page_of(run_page(found, page, how_to_look="")))  # noqa: B023
    print(tally)
