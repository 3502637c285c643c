"""Runs as methods: mean and spread over seeds, three ways to select a step, and what compares."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

from uda.reports.run_files import FoundRun
from uda.training.summary import ORACLE

# What a seed, a place on disk or the machine changes is not part of a method.
_NOT_THE_METHOD = {"train": ("seed",), "data": ("root", "workers", "cache", "cache_gib")}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number over the seeds of a method, in percent."""

    values: tuple[float, ...]
    repeated: bool = False  # a seed twice: the values are not spread as seeds are

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation; None of fewer than two seeds, or where one is repeated."""
        return stdev(self.values) if len(self.values) > 1 and not self.repeated else None

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


@dataclass(frozen=True, slots=True)
class Method:
    """The runs that differ in nothing but their seed, and their figures."""

    name: str
    runs: tuple[FoundRun, ...]
    supervision: str
    protocol: str
    classes: tuple[str, ...]
    seeds: tuple[str, ...]
    steps: str
    last: Figure
    # By how the step was selected, as summary.json words it. Empty unless every run has it.
    selected: Mapping[str, Figure]
    per_class: Mapping[str, Figure]

    @property
    def protocol_name(self) -> str:
        """The protocol without what follows from its name, and without the data set."""
        return self.protocol.partition(" on ")[0]


@dataclass(frozen=True, slots=True)
class Group:
    """Methods whose numbers compare; `reason`: why not with those of the first group."""

    methods: tuple[Method, ...]
    reason: str

    @property
    def label_free(self) -> tuple[str, ...]:
        """The selections without labels that some method has."""
        names = dict.fromkeys(name for method in self.methods for name in method.selected)
        return tuple(name for name in names if name not in ("last", ORACLE))


def grouped(found: Iterable[FoundRun]) -> list[Group]:
    """The methods that `found` are runs of, by what compares, in the order of the first run."""
    groups: dict[tuple[Any, ...], list[Method]] = {}
    for method in _named(_methods(found)):
        groups.setdefault((method.protocol, method.classes), []).append(method)
    first = next(iter(groups.values()))[0]
    return [
        Group(tuple(methods), "" if methods[0] is first else _reason(methods[0], first))
        for methods in groups.values()
    ]


def _reason(method: Method, other: Method) -> str:
    if method.protocol != other.protocol:
        return f"another protocol, data set or split; in the first table it is {other.protocol}"
    return f"{len(method.classes)} classes here, {len(other.classes)} there, or other names"


def _methods(found: Iterable[FoundRun]) -> Iterator[Method]:
    together: dict[str, list[FoundRun]] = {}
    for each in found:
        together.setdefault(repr(_identity(each)), []).append(each)
    for runs in together.values():
        first = runs[0].run
        seeds = tuple(each.run.facts.get("seed", "-") for each in runs)
        figure = partial(_figure, repeated=len(set(seeds)) < len(seeds))
        ways = dict.fromkeys(row["way"] for each in runs for row in each.run.selections)
        yield Method(
            name=first.facts["preset"],
            runs=tuple(runs),
            supervision=first.facts.get("supervision", "not known"),
            protocol=first.protocol,
            classes=tuple(first.per_class),
            seeds=seeds,
            steps=first.facts["step"],
            last=figure([each.run.miou for each in runs]),
            selected={way: figure([_by(each, way) for each in runs]) for way in ways},
            per_class={
                name: figure([each.run.per_class.get(name) for each in runs])
                for name in first.per_class
            },
        )


def _identity(found: FoundRun) -> tuple[object, ...]:
    """What is equal for the seeds of one method."""
    settings = {
        name: {n: v for n, v in part.items() if n not in _NOT_THE_METHOD.get(name, ())}
        if isinstance(part, Mapping)
        else part
        for name, part in found.experiment.items()
    }
    # Without a snapshot there is no preset to compare: such a run is a method of its own.
    alone = "" if found.experiment else found.run.name
    facts = (found.run.facts.get(n) for n in ("preset", "step", "supervision", "initial weights"))
    return (*facts, found.run.protocol, tuple(found.run.per_class), settings, alone)


def _named(methods: Iterable[Method]) -> list[Method]:
    """Methods by their presets, and where two have one, also by their first run."""
    every = list(methods)
    names = [method.name for method in every]
    return [
        method
        if names.count(method.name) == 1
        else _renamed(method, f"{method.name} ({method.runs[0].run.name})")
        for method in every
    ]


def _renamed(method: Method, name: str) -> Method:
    fields = {n: getattr(method, n) for n in Method.__slots__}
    return Method(**fields | {"name": name})


def _by(found: FoundRun, way: str) -> float | None:
    rows = (row["miou"] for row in found.run.selections if row["way"] == way)
    return next(rows, None)


def _figure(values: Sequence[float | None], *, repeated: bool) -> Figure:
    """Of all runs, or of none: a mean over some of the seeds would be another number."""
    known = tuple(value for value in values if value is not None)
    return Figure(known if len(known) == len(values) else (), repeated)


# --- tables


def overview(group: Group) -> list[list[str]]:
    """A row for each method: what it is, and its mIoU by each way to select a step."""
    head = ["method", "supervision", "protocol", "steps", "seeds", "last", "oracle selection"]
    rows = [[*head, *(way for way in group.label_free)]]
    for method in group.methods:
        nothing = Figure(())
        selected = [method.selected.get(way, nothing) for way in (ORACLE, *group.label_free)]
        seeds = ", ".join(method.seeds)
        facts = [method.name, method.supervision, method.protocol_name, method.steps, seeds]
        rows.append([*facts, str(method.last), *map(str, selected)])
    return rows


def by_class(group: Group) -> list[list[str]]:
    """A row for each method: mIoU and the IoU of each class, of the last step."""
    rows = [["method", "supervision", "protocol", "mIoU", *group.methods[0].classes]]
    for method in group.methods:
        figures = [method.last, *method.per_class.values()]
        facts = [method.name, method.supervision, method.protocol_name]
        rows.append([*facts, *map(str, figures)])
    return rows
