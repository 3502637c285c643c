"""What a snapshot file has to hold, and the label space in it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeGuard

from torch import Tensor, nn

from uda.data.config import DataConfig
from uda.data.registry import LABEL_SPACES
from uda.data.used_files import StoredFiles
from uda.evaluation.evaluate import EvaluationConfig
from uda.labels.spaces import LabelSpace
from uda.models.config import ModelConfig
from uda.optim.loss_scale import LossScaleState
from uda.optim.plateau import PlateauState
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError, require, shortened
from uda.utilities.schema import Plain, fault, is_real
from uda.utilities.tensor_values import require_finite
from uda.utilities.user_code import StoredCode

FORMAT = "uda-snapshot-1"


class _LabelSpace(TypedDict):
    name: str
    classes: tuple[str, ...]
    # The rest of a LabelSpace; snapshots that lack it are of label spaces known to this library.
    report_names: NotRequired[tuple[str, ...]]
    palette: NotRequired[tuple[tuple[int, ...], ...]]
    raw_to_train: NotRequired[dict[int, int]]
    mirror_swaps: NotRequired[tuple[tuple[int, ...], ...]]
    unscored: NotRequired[tuple[int, ...]]
    raw_colors: NotRequired[tuple[tuple[int, ...], ...]]
    raw_channel: NotRequired[str]  # these are younger than the others
    raw_values: NotRequired[tuple[tuple[int, ...], ...]]
    raw_deep: NotRequired[bool]
    raw_names: NotRequired[dict[str, int]]


_YOUNGER = {"raw_channel", "raw_values", "raw_deep", "raw_names"}


class _Optimizer(TypedDict):
    state: dict[int, dict[str, Tensor | None]]  # by the number of the parameter
    param_groups: list[dict[str, Plain]]


class _Training(TypedDict):
    objectives: dict[str, dict[str, Tensor]]
    optimizers: dict[str, _Optimizer]
    skipped: int
    # Missing in files of versions without them.
    plateau: NotRequired[PlateauState | None]
    loss_scale: NotRequired[LossScaleState | None]


class _Experiment(TypedDict):
    model: dict[str, Plain]
    data: dict[str, Plain]
    evaluation: dict[str, Plain]


class Stored(TypedDict):
    """What a file of ours has to hold."""

    preset: str
    experiment: dict[str, Plain]
    label_space: _LabelSpace
    supervision: str
    initial_weights: str
    step: int
    scores: dict[str, Plain] | None
    versions: dict[str, str]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor] | None
    training: NotRequired[_Training]  # of resume.pth
    samples: NotRequired[str]  # of resume.pth
    unfinished: NotRequired[bool]  # of resume.pth
    files: NotRequired[StoredFiles]  # of resume.pth
    data_changed_at: NotRequired[tuple[int, ...]]  # of resume.pth: the steps
    weights: NotRequired[str]  # of files of safetensors: which of a run's networks is "student"
    code: NotRequired[StoredCode | None]  # of runs with classes from a user's file


def is_ours(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is what `torch.load` returns for a snapshot."""
    found = content.get("format") if isinstance(content, dict) else None
    return isinstance(found, str) and found == FORMAT  # a tensor would be compared one by one


def complete(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """`content` as it is; InputError when something is missing or of another type."""
    wrong = fault(content, Stored) or fault(content["experiment"], _Experiment, "experiment")
    require(not wrong, f"{path} is damaged: {wrong}; give another snapshot of that run")
    return content


def load_weights(segmenter: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Loads every tensor of the network; InputError when one is missing, odd, too many or not
    finite."""
    check_fit(segmenter.state_dict(), state, origin)
    require_finite(state, origin)
    segmenter.load_state_dict(dict(state))


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Raises InputError when the tensors are not those of `own` by names, shapes and kinds."""
    odd = sorted(set(own) ^ set(state))
    odd += [name for name in own if name in state and not _is_alike(own[name], state[name])]
    if odd:
        raise InputError(
            f"{origin}: {len(odd)} tensors do not fit the network of this preset, e.g. "
            f"{shortened(odd[0])}; use a snapshot of a preset with the same model settings"
        )


def _is_alike(own: Tensor, other: Tensor) -> bool:
    return (
        is_real(other)  # a nested one has no shape
        and own.shape == other.shape
        and own.dtype.is_floating_point == other.dtype.is_floating_point
    )


def plain_experiment(model: ModelConfig, protocol: str, dataset: str) -> dict[str, Any]:
    """As much of a preset as a network of another project has, as plain values."""
    return {
        "model": {"type": type(model).__name__} | to_plain(model),
        "data": to_plain(DataConfig()),
        "evaluation": to_plain(EvaluationConfig.following(protocol, dataset=dataset)),
    }


def plain_label_space(space: LabelSpace) -> dict[str, Any]:
    """The label space as `stored_space` reads it."""
    return {part.name: getattr(space, part.name) for part in fields(LabelSpace) if part.init}


def stored_space(stored: Mapping[str, Any], path: Path) -> LabelSpace:
    """The label space of a snapshot: one that this library knows, or the one that is stored.

    Raises InputError when it is neither, or is damaged.
    """
    name, classes = stored["name"], tuple(stored["classes"])
    known = LABEL_SPACES.get(name)
    parts = {part.name for part in fields(LabelSpace) if part.init}
    whole = stored.keys() >= parts - _YOUNGER
    require(
        known.classes == classes if known is not None else whole,
        f"{path}: its label space is {shortened(name)} with {len(classes)} classes; known: "
        f"{_known_spaces()}",
    )
    if known is not None:
        return known
    triples = all(len(color) == 3 for color in (*stored["palette"], *stored["raw_colors"]))
    twos = (*stored["mirror_swaps"], *stored.get("raw_values", ()))
    pairs = all(len(pair) == 2 for pair in twos)
    require(
        triples and pairs,
        f"{path} is damaged: its label space has odd colors or pairs; give another snapshot",
    )
    try:
        return LabelSpace(**{name: stored[name] for name in parts & stored.keys()})
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}; give another snapshot") from None


def _known_spaces() -> str:
    return ", ".join(f"{s.name} with {s.num_classes}" for s in LABEL_SPACES.values())
