"""Has a run collapsed? Counts of a logged step -> figures and verdicts; many of them -> warnings.

The figures describe one step. A warning depends on their mean over the last logs and on nothing
else: a resumed run, whose monitor reads them again, warns as an uninterrupted one does.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

Verdict = Literal["saturated", "inactive", "working"]

WINDOW = 10  # logs that a warning is a mean over
REST = 1000  # steps between two warnings of one kind
_QUIET = 1000  # first steps without warnings; of a run of less than five times as many, a fifth

_RARE = 1e-5  # share of the source's pixels below which a class is not expected
_VANISHED = 0.01  # predicted share over source share below which a class has vanished
_SATURATED = 0.99  # accuracy on each domain from which a discriminator has won
_CHANCE = 0.55  # mean accuracy over both domains up to which it only guesses; chance: 0.5
_NOTHING_KEPT = 0.01  # share of all pixels
_CLASS_NEVER_KEPT = 0.001  # share of a class's pixels
_DISAGREEMENT = 0.5  # share of the target's pixels on which teacher and student agree
_DISTANCE = 0.5  # total variation distance: share of the pixels that would have to change class


class Figures(NamedTuple):
    """What a log holds besides losses: numbers and words, both by name."""

    numbers: dict[str, float]
    words: dict[str, str]


def figures_of(counts: Mapping[str, Tensor], names: Sequence[str]) -> Figures:
    """The figures of a step's counts (see uda/objectives/counts.py), which are on the host; shares
    in [0, 1], classes by `names`.

    source/<class>, predicted/<class>: shares of the labeled source pixels and of all predictions;
    vanished_classes, histogram_distance: how these compare, where there is a source;
    kept/<objective>, kept/<objective>/<class>: the share of all pixels, or of a class's pixels,
    that the objective learns from; agreement: of teacher and student;
    discriminator/<objective>/<head>/source, .../target: its accuracies. Shares of nothing are left
    out. Words: the domain of the predictions, and verdicts.
    """
    numbers: dict[str, float] = {}
    words: dict[str, str] = {}
    for name, count in counts.items():
        kind = name.split("/")[0]
        if kind == "source":
            numbers |= _named(name, _shares(count), names)
        elif kind == "predicted":
            words["predicted_on"] = name.split("/")[1]
            numbers |= _named(kind, _shares(count), names)
        elif kind == "agreement":
            numbers[name] = _ratio(*count.tolist())
        elif kind == "kept":
            kept, every = count.tolist()
            numbers[name] = _ratio(sum(kept), sum(every))
            numbers |= _named(
                name, [_ratio(*pair) for pair in zip(kept, every, strict=True)], names
            )
        else:
            source, target = (_ratio(*row) for row in count.tolist())
            numbers |= {f"{name}/source": source, f"{name}/target": target}
            words[f"{name}/verdict"] = verdict(source, target)
    numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
    return Figures(numbers | _comparison(numbers), words)


def verdict(source: float, target: float) -> Verdict:
    """What a discriminator's accuracies on source and target mean for the student.

    "saturated": it is always right, and its scores have almost no gradient. "inactive": it gives
    both domains the same answer, guesses, or is mostly wrong, so it teaches the student nothing.
    """
    if min(source, target) >= _SATURATED:
        return "saturated"
    return "inactive" if (source + target) / 2 <= _CHANCE else "working"


class Monitor:
    """Reads the figures of one log after the other and warns."""

    def __init__(self, *, steps: int) -> None:
        """`steps`: of the whole run; there are no warnings in the first of them."""
        self._quiet_until = min(_QUIET, steps // 5)
        self._logs: deque[Mapping[str, Any]] = deque(maxlen=WINDOW)
        self._last: dict[str, int] = {}  # step of the last warning of each kind

    def warnings_after(self, step: int, log: Mapping[str, Any]) -> dict[str, str]:
        """The warnings, by kind, that are due after this log of numbers and words: at most one of a
        kind in REST steps."""
        self._logs.append(log)
        if len(self._logs) < WINDOW or step < self._quiet_until:
            return {}
        found: dict[str, str] = {}
        for kind, text in self._findings():
            if kind not in self._last or step - self._last[kind] >= REST:
                found[kind] = f"{found[kind]}; {text}" if kind in found else text
        self._last |= dict.fromkeys(found, step)
        return found

    def _findings(self) -> Iterator[tuple[str, str]]:
        means = self._means()
        yield from _histogram_findings(_part(means, "source"), _part(means, "predicted"))
        if means.get("agreement", 1.0) < _DISAGREEMENT:
            share = f"{means['agreement']:.1%}"
            yield "agreement", f"teacher and student agree on {share} of the target's pixels"
        yield from _kept_findings(means)
        for name, found in self._verdicts():
            right = [f"{means[f'{name}/{d}']:.1%} of the {d}" for d in ("source", "target")]
            yield f"discriminator {found}", f"{name} is {found}: right on {' and '.join(right)}"

    def _means(self) -> dict[str, float]:
        """The mean of each number that most logs of the window have."""
        found: dict[str, list[float]] = {}
        for log in self._logs:
            for name, value in log.items():
                if isinstance(value, float):
                    found.setdefault(name, []).append(value)
        return {n: sum(v) / len(v) for n, v in found.items() if 2 * len(v) > WINDOW}

    def _verdicts(self) -> Iterator[tuple[str, str]]:
        """Discriminators that are not working according to every log of the window."""
        for name, first in self._logs[0].items():
            if not name.endswith("/verdict") or first == "working":
                continue
            if all(log.get(name) == first for log in self._logs):
                yield name.removesuffix("/verdict"), first


def _histogram_findings(
    source: Mapping[str, float], predicted: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    gone = _vanished(source, predicted)
    if gone:
        yield "vanished", f"hardly ever predicted, though the source has them: {', '.join(gone)}"
    if _distance(source, predicted) > _DISTANCE:
        most = max(predicted, key=lambda name: predicted[name] - source[name])
        shares = f"{predicted[most]:.1%} of the pixels, in the source {source[most]:.1%}"
        yield "histogram", f"predictions are far from the source's labels: {most} has {shares}"


def _kept_findings(means: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for name in means:
        if not name.startswith("kept/") or name.count("/") > 1:
            continue
        objective = name.removeprefix("kept/")
        never = [c for c, share in _part(means, name).items() if share < _CLASS_NEVER_KEPT]
        if means[name] < _NOTHING_KEPT:
            yield "kept", f"{objective} learns from {means[name]:.2%} of the pixels"
        elif never:
            yield "kept", f"{objective} learns from hardly any pixel of {', '.join(never)}"


def _comparison(numbers: Mapping[str, float]) -> dict[str, float]:
    source, predicted = _part(numbers, "source"), _part(numbers, "predicted")
    if not source or not predicted:
        return {}
    return {
        "vanished_classes": float(len(_vanished(source, predicted))),
        "histogram_distance": _distance(source, predicted),
    }


def _vanished(source: Mapping[str, float], predicted: Mapping[str, float]) -> list[str]:
    """Classes that are predicted a hundred times less often than the source has them."""
    if not predicted:
        return []
    return [
        name
        for name, share in source.items()
        if share >= _RARE and predicted.get(name, 0.0) < _VANISHED * share
    ]


def _distance(source: Mapping[str, float], predicted: Mapping[str, float]) -> float:
    """Total variation distance: half the sum of the absolute differences; 0 unless both are
    known."""
    if not source or not predicted:
        return 0.0
    names = source.keys() | predicted.keys()
    return sum(abs(source.get(n, 0.0) - predicted.get(n, 0.0)) for n in sorted(names)) / 2


def _part(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The numbers `<prefix>/<class>` by class."""
    start = f"{prefix}/"
    return {n.removeprefix(start): v for n, v in numbers.items() if n.startswith(start)}


def _named(prefix: str, values: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in zip(names, values, strict=True)}


def _shares(counts: Tensor) -> list[float]:
    total = int(counts.sum())
    return [_ratio(count, total) for count in counts.tolist()]


def _ratio(part: int, whole: int) -> float:
    """part / whole; NaN when `whole` is 0."""
    return part / whole if whole else math.nan
