"""What every way to adapt a network has in common; each is one file in `methods/`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import uda.adaptation.methods
from uda.evaluation.batch_norm import batch_norms
from uda.models.segmenter import Segmenter
from uda.objectives.base import ObjectiveConfig
from uda.objectives.registry import objective_configs
from uda.optim.settings import Learned
from uda.utilities.config_tree import suggest
from uda.utilities.discovery import instances_of
from uda.utilities.errors import InputError, require


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What decides which methods can be used."""

    images: int  # that are learned from
    batch_norms: int  # layers of batch norm with running statistics
    norms: int  # layers of any normalization with weights
    source: str | None = None  # the data set with labels, if there is one

    @classmethod
    def of(cls, segmenter: Segmenter, *, images: int, source: str | None = None) -> "Subject":
        """What a network and its images are."""
        layers = list(segmenter.modules())
        weighed = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
        norms = [m for m in layers if isinstance(m, weighed) and m.weight is not None]
        return cls(
            images=images,
            batch_norms=len(batch_norms(segmenter)),
            norms=len(norms),
            source=source,
        )


def fits_all(subject: Subject) -> str:
    """No reason against any network."""
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to adapt a network to images without labels."""

    name: str  # as `--method` calls it
    about: str  # what it does, as the report says it
    unfit: Callable[[Subject], str] = fits_all  # why it cannot be used, and what can; "" if it can
    # What a training stage learns; None: statistics are counted, and nothing is learned.
    objectives: Callable[[Subject], dict[str, ObjectiveConfig]] | None = None
    learned: Learned = "all"  # which weights
    lr_factor: float = 1.0  # of the stage's learning rate
    needs_source: bool = field(default=False)


@cache
def methods() -> Mapping[str, Method]:
    """The methods without a source by name, then those that `--source` allows."""
    own = {method.name: method for method in instances_of(uda.adaptation.methods, Method)}
    return own | {m.name: m for m in _with_source() if m.name not in own}


def stages_named(texts: Sequence[str], subject: Subject) -> list[tuple[Method, ...]]:
    """The stages that `--method` asks for: "a+b" are two methods that learn together.

    Raises InputError for a name that there is not, for methods that cannot be used with this
    network, and for those that cannot be learned together; all at once.
    """
    return [_stage(text, subject) for text in texts]


def _stage(text: str, subject: Subject) -> tuple[Method, ...]:
    known = methods()
    names = text.split("+")
    found = []
    for name in names:
        if name not in known:
            raise InputError(f"--method {text}: there is no {name!r}; {suggest(name, known)}")
        method = known[name]
        reason = method.unfit(subject)
        require(not reason, f"--method {text}: {name} cannot be used here: {reason}")
        require(
            not method.needs_source or subject.source is not None,
            f"--method {text}: {name} learns from labels of a source: add --source NAME, such as "
            "--source gta5, or choose one that needs none: self-training",
        )
        found.append(method)
    require(len(set(names)) == len(names), f"--method {text} names a method twice: name it once")
    if len(found) > 1:
        for method in found:
            require(
                method.objectives is not None,
                f"--method {text}: {method.name} learns nothing, so nothing can be learned "
                f"together with it: make it a stage of its own, --method {method.name} "
                + "+".join(name for name in names if name != method.name),
            )
        learned = {method.learned for method in found}
        require(
            len(learned) == 1,
            f"--method {text}: these learn different weights ({', '.join(sorted(learned))}): make "
            f"them stages, --method {' '.join(names)}",
        )
    return tuple(found)


def _one_objective(
    name: str, config: type[ObjectiveConfig], subject: Subject
) -> dict[str, ObjectiveConfig]:
    return {name: config()}


def _with_source() -> list[Method]:
    """The objectives of the ladder that need no more than a source, the target and a teacher."""
    allowed = {"source", "target", "teacher", "equal_crops"}
    own = {"entropy", "target_mix", "information_maximization"}  # are methods of their own
    found = []
    for name, config in objective_configs().items():
        try:
            needs = config().needs()
        except TypeError:  # a field without a default: it needs a file or a number
            continue
        if name not in own and name != "supervised" and needs <= allowed and "target" in needs:
            found.append(
                Method(
                    name=name.replace("_", "-"),
                    about=f"the objective {name} of the ladder, with the source's labels",
                    objectives=partial(_one_objective, name, config),
                    needs_source=True,
                )
            )
    return found
