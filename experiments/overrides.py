"""What the command line changes in a preset: its fields, its length, what it is scored on."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from uda.augmentation.jitter import JitterConfig, jitter_named
from uda.data.config import DomainConfig
from uda.data.described.layouts import is_described
from uda.evaluation.protocols import protocol_fields
from uda.experiment import Experiment
from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.registry import model_configs
from uda.objectives.base import ObjectiveConfig
from uda.objectives.registry import objective_configs
from uda.optim.optimizers import OptimizerConfig, optimizer_named
from uda.utilities.config_tree import Makers, apply_override
from uda.utilities.errors import InputError, require, shown

_SMOKE_STEPS = 10
_Config = TypeVar("_Config", ModelConfig, DecoderConfig, ObjectiveConfig)


class Changed(NamedTuple):
    """What there is to know of a changed preset."""

    typed: tuple[str, ...]  # dotted names of the fields that were set
    remarks: tuple[str, ...]  # on lengths that followed


def change(
    experiment: Experiment,
    overrides: Sequence[str],
    *,
    smoke: bool = False,
    sanity_check: bool = False,
) -> Changed:
    """Sets fields of `experiment` from texts such as `train.seed=1`, in their order.

    With another number of steps, lengths that no longer fit are scaled. `smoke` makes the run a few
    steps long. `sanity_check` trains on the first images of the source and scores the same images.
    Raises InputError with every override that cannot be applied.
    """
    length = experiment.train.steps
    overrides = [_part_by_name(override) for override in overrides]
    typed = tuple(override.partition("=")[0].strip() for override in overrides)
    problems, remarks = list(_replaced(overrides)), list[str]()
    for override in overrides:
        try:
            remarks += _encoder_and_decoder(experiment, override)
            apply_override(experiment, override, _MAKERS)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    if sanity_check:
        typed += _score_on_first_batch(experiment, typed)
    if smoke:
        require(length > 0, "--smoke shortens training, but this preset trains nothing: omit it")
        if "train.steps" not in typed:
            experiment.train.steps = _SMOKE_STEPS
            typed += ("train.steps",)
        experiment.train.log_every = 1
    remarks += _follow(experiment, length, typed, all_lengths=smoke)
    remarks += _score_as_trained(experiment, typed)
    return Changed(typed, tuple(remarks))


# --- encoders and decoders

_DECODERS = ("model.decoder", "model.auxiliary", "model.hrda.attention")
_PARTS = ("model.encoder", "model.decoder", "model.auxiliary", "model.auxiliary_map",
          "model.input_scale", "model.hrda")  # fmt: skip
# Fields of DeepLabV3+ that what is named here replaces.
_OF_ENCODER = ("model.backbone", "model.backbone_weights", "model.backbone_width",
               "model.output_stride")  # fmt: skip
_OF_DECODER = ("model.aspp_rates", "model.aspp_channels", "model.low_level_channels",
               "model.decoder_channels", "model.separable")  # fmt: skip
_RESETS = {
    "model.encoder": _OF_ENCODER,
    "model.encoder.name": _OF_ENCODER,
    "model.decoder": _OF_DECODER,
    "model.auxiliary": ("model.auxiliary_head",),
}


def _part_by_name(override: str) -> str:
    """`model.decoder=x` for `model.decoder.name=x`: decoders have classes of their own, encoders
    one for all, so that it is the other way round for them."""
    path, _, name = override.partition("=")
    if (path.strip(), name.strip()) == ("evaluation", "none"):
        return "evaluation.every=0"
    owner, _, last = path.strip().rpartition(".")
    if path.strip() == "model.encoder" and name.strip().lower() not in ("default", "none"):
        return f"model.encoder.name={name}"
    return f"{owner}={name}" if owner in _DECODERS and last == "name" else override


def _encoder_and_decoder(experiment: Experiment, override: str) -> Iterator[str]:
    """Prepares `experiment.model` for an override of its encoder or decoder; says what it did.

    A network that has neither becomes the same network with both, where there is such a one. The
    name of another encoder resets the other settings of the encoder.
    """
    path = override.partition("=")[0].strip()
    model = experiment.model
    if not any(path == part or path.startswith(f"{part}.") for part in _PARTS):
        return
    composed = model.composed()
    if composed is None:
        network = next(n for n, cls in model_configs().items() if cls is type(model))
        raise InputError(
            f"--set {shown(override)}: the network of this preset, {network}, is not made of an "
            "encoder and a decoder: before it, add --set model=encoder_decoder"
        )
    if composed is not model:
        experiment.model = composed
        yield (
            "model is encoder_decoder now: the preset's network, made of an encoder, a decoder and "
            "an auxiliary head that --set can exchange"
        )
    if path == "model.encoder.name":
        assert isinstance(composed, EncoderDecoderConfig)
        weights = composed.encoder.weights
        composed.encoder = EncoderConfig(checkpointing=composed.encoder.checkpointing)
        if weights == "none":
            composed.encoder.weights = weights


def _replaced(overrides: Sequence[str]) -> Iterator[str]:
    """What to say of fields that a later override replaces."""
    typed = [override.partition("=")[0].strip() for override in overrides]
    for place, path in enumerate(typed):
        value = overrides[place].partition("=")[2].strip()
        for later in typed[place + 1 :]:
            resets = later == "model.encoder.name" and path.startswith("model.encoder.")
            resets |= path in _RESETS.get(later, ()) and not (
                path == "model.backbone_weights" and value == "none"  # random they stay
            )
            if path.startswith(f"{later}.") or (resets and path != later):
                yield (
                    f"--set {path} changes nothing: a later --set {later} replaces it; omit it, or "
                    "put it after that"
                )


def _score_on_first_batch(experiment: Experiment, typed: Sequence[str]) -> tuple[str, ...]:
    """The fields that a sanity check sets."""
    source = experiment.data.source
    require(
        source is not None and len(source.datasets) == len(source.splits) == 1,
        "--sanity-check scores the labeled source images that it trains on: set data.source to one "
        "data set and split, such as --set data.source=gta5",
    )
    assert source is not None
    if "data.source.first" not in typed:
        source.first = experiment.train.batch_size
    experiment.evaluation.dataset, experiment.evaluation.split = *source.datasets, *source.splits
    experiment.train.sanity_check = True
    return ("train.sanity_check",)


# --- lengths that follow the number of steps


class _Length(NamedTuple):
    path: str
    owner: object
    name: str
    lowest: int  # what it may be ...
    highest: int | None  # ... up to this, with it; None: without end


def _lengths(experiment: Experiment) -> Iterator[_Length]:
    train = experiment.train
    last = train.steps - 1
    yield _Length("train.warmup_steps", train, "warmup_steps", 0, last)
    yield _Length("train.schedule_steps", train, "schedule_steps", train.steps, None)
    if (restart := train.restart) is not None:
        yield _Length("train.restart.at_step", restart, "at_step", 1, last)
        path = "train.restart.schedule_steps"
        yield _Length(path, restart, "schedule_steps", train.steps, None)
    if (cosine := train.cosine_restarts) is not None:
        path = "train.cosine_restarts"
        lowest = min(cosine.from_step, 1)  # 0 means that no plateau comes first
        yield _Length(f"{path}.from_step", cosine, "from_step", lowest, last)
        yield _Length(f"{path}.period", cosine, "period", 1, None)
    for name, config in experiment.objectives.items():
        yield _Length(f"objectives.{name}.start_step", config, "start_step", 0, last)


def _follow(
    experiment: Experiment, before: int, typed: Sequence[str], *, all_lengths: bool
) -> Iterator[str]:
    """Scales the lengths that do not fit the number of steps, which was `before`; or all of them.

    Says what it did. What was typed stays.
    """
    steps = experiment.train.steps
    if not steps or not before or steps == before:
        return
    for path, owner, name, lowest, highest in _lengths(experiment):
        value = getattr(owner, name)
        if value is None or path in typed:
            continue
        fits = lowest <= value and (highest is None or value <= highest)
        scaled = max(value * steps // before, lowest)
        if highest is not None:
            scaled = min(scaled, highest)
        if scaled != value and (all_lengths or not fits):
            setattr(owner, name, scaled)
            yield f"{path} is {scaled} instead of {value}, as train.steps is {steps}, not {before}"


def _score_as_trained(experiment: Experiment, typed: Sequence[str]) -> Iterator[str]:
    """Scores at the size of training, where that was typed and nothing about scoring was: of the
    target or, without one, of a source that is the user's own."""
    data, evaluation = experiment.data, experiment.evaluation
    domain = data.target or data.source
    path = "data.target" if data.target else "data.source"
    scoring = {f"evaluation.{name}" for name in protocol_fields(evaluation)}
    if domain is None or f"{path}.size" not in typed or scoring & set(typed):
        return
    own = all(map(is_described, (*domain.datasets, evaluation.dataset)))
    windows = evaluation.window or evaluation.pad_to
    if windows or (data.target is None and not own) or evaluation.input_size == domain.size:
        return
    evaluation.input_size, evaluation.keep_ratio = domain.size, domain.keep_ratio
    size = "evaluation.input_size is {},{}".format(*domain.size)
    said = f"{size}, as {path}.size is; to score at another size, "
    yield f"{said}add --set evaluation.input_size=..., or none for images as they are stored"


# --- what is chosen by name


def _objective(name: str, _: object) -> ObjectiveConfig:
    return _named(name, objective_configs(), ObjectiveConfig, "an objective")


def _model(name: str, _: object) -> ModelConfig:
    return _named(name, model_configs(), ModelConfig, "a network")


def _decoder(name: str, _: object) -> DecoderConfig:
    return _named(name, decoder_configs(), DecoderConfig, "a decoder")


def _named(name: str, ours: dict[str, type[_Config]], base: type[_Config], kind: str) -> _Config:
    """The configuration called `name` with its defaults, one of ours or of a user's file."""
    known = ours | dict(_of_users(base))
    require(name in known, f"{shown(name)} is not {kind}; known: {', '.join(sorted(known))}")
    make: Callable[[], _Config] = known[name]
    try:
        return make()
    except TypeError as error:
        missing = str(error).rpartition(":")[2].strip()
        raise InputError(
            f"{name} has no default for {missing}: take a preset that has it"
        ) from None


def _of_users(base: type[_Config]) -> Iterator[tuple[str, type[_Config]]]:
    """The classes below `base` that were imported from files outside of the library, by name:
    `MaskedImageConfig` is masked_image."""
    for cls in base.__subclasses__():
        yield from _of_users(cls)
        module = sys.modules.get(cls.__module__)
        # `@dataclass(slots=True)` leaves the class behind that it was applied to.
        current = getattr(module, cls.__name__, None) is cls
        if current and cls.build is not base.build and cls.__module__.partition(".")[0] != "uda":
            words = re.findall(
                r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", cls.__name__.removesuffix("Config")
            )
            yield "_".join(words).lower(), cls


def _domain(names: str, _: object) -> DomainConfig:
    """All training images of the data sets, with the defaults of DomainConfig."""
    datasets = tuple(name.strip() for name in names.split(",") if name.strip())
    require(
        bool(datasets) and datasets != ("default",),
        "name the data sets, such as --set data.target=cityscapes",
    )
    return DomainConfig(datasets=datasets)


_MAKERS: Makers = {
    ObjectiveConfig: _objective,
    ModelConfig: _model,
    DecoderConfig: _decoder,
    OptimizerConfig: optimizer_named,
    DomainConfig: _domain,
    JitterConfig: jitter_named,
}
