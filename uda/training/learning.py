"""The student's part of a step: a forward pass per view, and the gradients of all terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Objective, StepContext
from uda.training.run import Run
from uda.utilities.errors import InputError, require


class Learning:
    """Adds up the gradients of one step, view by view.

    For each view: the student's forward pass; then, one objective after the other, backward from
    its terms to the student's output; then backward through the student. So memory holds the graph
    of one view and, beyond the student, of one objective at a time. The graphs of views that an
    objective compares (`ObjectiveConfig.joint`) are kept until it has all of them.
    """

    def __init__(self, run: Run, active: Mapping[str, Objective], context: StepContext) -> None:
        self.losses: dict[str, Tensor] = {}  # scalars, detached, by "loss/<objective>/<term>"
        self.views: list[View] = []  # the student was applied to
        self._run = run
        self._active = active
        self._context = context
        self._joint = {n: o.joint for n, o in active.items() if o.joint}  # not yet computed
        self._outputs: dict[str, _Output] = {}  # of the views whose graphs are kept
        self._gates: list[_Gate] = []
        # What gradients of the student's output arrive at, where it still exists.
        self._ends: list[ReferenceType[Tensor]] = []

    def learn_from(self, view: View) -> None:
        """Applies the student to `view` and learns all terms that can now be computed."""
        readers = {name: o for name, o in self._active.items() if view.name in o.reads}
        if not readers and not any(view.name in names for names in self._joint.values()):
            return
        self.views.append(view)
        shown = self._forward(view)
        for name, objective in readers.items():
            self.learn(
                name,
                partial(objective.terms, view, shown, self._context),
                weight=objective.config.weight,
            )
        for name in [n for n, views in self._joint.items() if views <= self._outputs.keys()]:
            self._learn_jointly(name, self._joint.pop(name))
        kept = {name for names in self._joint.values() for name in names}
        for name in [name for name in self._outputs if name not in kept]:
            self._outputs.pop(name).backward()

    def learn(
        self,
        name: str,
        terms: Callable[[], Mapping[str, Tensor]],
        *,
        weight: float = 1.0,
        networks: nn.Module | None = None,
    ) -> None:
        """Computes terms of the objective `name`, and adds up their gradients and values. Their
        graph is freed when this returns. `networks`: those that the terms are of; gradients of what
        these read are then not computed."""
        with autocast(self._run):
            made = {term: weight * value for term, value in terms().items()}
        if not made:
            return
        for term, value in made.items():
            require(
                value.shape == (),
                f"objective {name!r}: term {term!r} is a tensor {tuple(value.shape)}; allowed: a "
                "scalar, such as its mean",
            )
        total = torch.stack(list(made.values())).sum()
        require(
            total.requires_grad,
            f"objective {name!r}: no gradient flows from {', '.join(made)}, so nothing would be "
            "learned; compute terms from the student's output, or return {} in such a step",
        )
        scale = self._run.loss_scale
        own = [] if networks is None else [p for p in networks.parameters() if p.requires_grad]
        # What is left of the student's outputs is among them, so that its gate notices.
        left = [end for reference in self._ends if (end := reference()) is not None]
        learned = [*own, *left] if own else None
        (total if scale is None else total * scale.value).backward(inputs=learned)
        for gate in self._gates:
            if gate.passed_late:
                raise InputError(
                    f"objective {name!r} uses the student's output on view {gate.view!r} in a "
                    "later term, after the view's graph was freed: the gradient would be lost. Let "
                    "joint() of its config name all views that the term compares and return it "
                    "from joint_terms(), or detach() what is kept of earlier views"
                )
        self.losses.update({f"loss/{name}/{term}": value.detach() for term, value in made.items()})

    def _forward(self, view: View) -> SegmentationOutput:
        """The student's output on `view` as objectives get it."""
        with autocast(self._run):
            output = self._run.student(
                view.images, perturb=view.perturb, hide_tokens=view.hide_tokens
            )
        if view.name in ("source", "target"):
            self._context.counts.student(view.name, output.main)
        gate = _Gate(view.name)
        self._gates.append(gate)
        self._outputs[view.name] = _Output(output, gate)
        shown = self._outputs[view.name].shown
        self._ends += [ref(end) for end in shown.tensors().values() if end.requires_grad]
        return shown

    def _learn_jointly(self, name: str, views: frozenset[str]) -> None:
        objective = self._active[name]
        outputs = {view: self._outputs[view].shown for view in sorted(views)}
        terms = partial(objective.joint_terms, outputs, self._context)
        self.learn(name, terms, weight=objective.config.weight)


@dataclass(slots=True)
class _Gate:
    """A hook that notices gradients which arrive at the output on a view too late.

    It refers to no tensor, so that there is no cycle of references to keep their memory.
    """

    view: str
    closed: bool = False
    passed_late: bool = False

    def __call__(self, gradient: Tensor) -> None:
        self.passed_late = self.passed_late or self.closed


class _Output:
    """The student's output on a view, and the same values where the gradients of terms add up.

    `shown` holds these values. `backward` takes their gradients through the student, once.
    """

    def __init__(self, output: SegmentationOutput, gate: _Gate) -> None:
        self._made = output.tensors()
        self._ends = {
            name: made.detach().requires_grad_(made.requires_grad)
            for name, made in self._made.items()
        }
        for end in self._ends.values():
            if end.requires_grad:
                end.register_hook(gate)
        self.shown = output.replace(**self._ends)
        self._gate = gate

    def backward(self) -> None:
        self._gate.closed = True
        arrived = [
            (self._made[name], end.grad) for name, end in self._ends.items() if end.grad is not None
        ]
        if arrived:
            torch.autograd.backward([made for made, _ in arrived], [grad for _, grad in arrived])


def autocast(run: Run) -> torch.autocast:
    """The precision of the run's forward passes."""
    precision = run.experiment.train.precision
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(run.device.type, dtype, enabled=precision != "float32")
