"""Further files beside an opened network, which predict together with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from uda.checkpoints.foreign import ForeignOptions
from uda.evaluation.ensembles import Average, Ensemble
from uda.evaluation.inference import check_average
from uda.evaluation.protocols import protocol_fields
from uda.prediction.opened import OpenedNetwork, open_network
from uda.utilities.errors import InputError, require
from uda.utilities.reading import real


def join(
    first: OpenedNetwork,
    path: Path,
    others: Sequence[Path],
    *,
    average: Average = "probabilities",
    device: torch.device,
    weights: Literal["student", "teacher"] = "student",
    foreign: ForeignOptions | None = None,
    code: Path | None = None,
    adapt_bn: Path | None = None,
) -> OpenedNetwork:
    """`first`, which is in the file `path`, as an ensemble with the networks in the files `others`.

    All see images by the protocol of `first`. The facts are those of all: a value in which they
    differ is one for each, in order, joined by " + ". The other arguments are those of
    `open_network`. Raises InputError when a file is given twice, cannot be opened, or is of other
    classes, and when the protocol leaves no logits to average.
    """
    found = [first]
    known = [path]
    for other in others:
        twice = any(real(other) == real(one) for one in known)
        require(not twice, f"--with names {other} a second time: name each network once")
        known.append(other)
        try:
            opened = open_network(
                other,
                device=device,
                weights=weights,
                foreign=foreign,
                code=code,
                changes=protocol_fields(first.config),
                adapt_bn=adapt_bn,
                data=False,
            )
        except InputError as error:
            said = str(error)
            of_it = "" if str(other) in said else f" {other}"
            raise InputError(f"--with{of_it}: {said}") from error
        ours, theirs = first.snapshot.label_space.classes, opened.snapshot.label_space.classes
        if ours != theirs:
            raise InputError(
                f"--with {other} has other classes than {path}: {_difference(ours, theirs)}; give "
                "networks of the same classes in the same order"
            )
        found.append(opened)
    ensemble = Ensemble([opened.segmenter for opened in found], average)
    check_average(ensemble, first.config)
    facts = {"ensemble": str(ensemble)} | _joined([opened.facts for opened in found])
    return replace(first, ensemble=ensemble, facts=facts)


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    if len(ours) != len(theirs):
        return f"{len(theirs)}, not {len(ours)}"
    place = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    return f"class {place} is {theirs[place]}, not {ours[place]}"


def _joined(facts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """One value of each fact where all have the same, or else the values of all."""
    names = dict.fromkeys(name for one in facts for name in one)
    values = {name: [one.get(name, "-") for one in facts] for name in names}
    return {
        name: found[0] if all(value == found[0] for value in found) else " + ".join(map(str, found))
        for name, found in values.items()
    }
