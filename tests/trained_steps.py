"""Three steps of tiny presets and what they come to, in as many processes as there are.

    torchrun --nproc-per-node 2 tests/trained_steps.py DATA OUTPUT PRESET ...

writes, by preset, what `steps_of` returns. Run by test_distributed.py, which compares.
"""

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # `experiments`, when run as a script

from tiny_runs import tiny_preset, without_dropout
from trials import small_mask2former
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.evaluation.label_free import label_free_criteria
from uda.experiment import Experiment
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.objectives.counts import of_all_processes
from uda.objectives.feature_distance import FeatureDistanceConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.functional.class_thresholds import AdaptiveConfig
from uda.objectives.functional.pseudo_labels import ConfidenceRule
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.objectives.supervised import SupervisedConfig
from uda.objectives.teacher_labels import TeacherLabelsConfig
from uda.optim.optimizers import OptimizerConfig
from uda.training.run import start_run
from uda.training.step import train_step
from uda.utilities.distributed import is_main, mean_over_ranks, process_group

STEPS = 3
MASKS = "mask2former"  # stands for a preset: the network that has a loss, and clipping, of its own
AGAIN = "checkpointed"  # and another: stages with batch norm are computed again
# And these: rules of confidence that no preset has.
RULES: tuple[ConfidenceRule, ...] = ("class_balanced", "instance_adaptive")
# Without momentum or a scale of its own: a gradient of 1e-9 must not become a step of 1e-3.
PLAIN = OptimizerConfig(name="sgd", lr=0.0001, momentum=0.0, weight_decay=0.01)


def comparable(name: str, root: Path) -> Experiment:
    """The preset without what is drawn per process, and with steps as small as their gradients."""
    own = name not in (MASKS, AGAIN, *RULES)
    experiment = tiny_preset(name if own else "toy_source_only", root, steps=STEPS)
    if name == MASKS:
        experiment.model = small_mask2former()
        experiment.objectives = {"masks": MaskClassificationConfig(points=64)}
        experiment.train.max_grad_norm = 0.01
    if name == AGAIN:
        encoder = EncoderConfig(name="resnet18", weights="none", width=16, checkpointing=True)
        experiment.model = EncoderDecoderConfig(encoder=encoder)
        experiment.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    for rule in RULES:
        if name == rule:
            experiment = tiny_preset("gc_640x360_b2_fix_match", root, steps=STEPS)
            adaptive = AdaptiveConfig(start=0.06)  # an untrained network reaches it
            experiment.objectives["fix_match"] = FixMatchConfig(confidence=rule, adaptive=adaptive)
    without_dropout(experiment)
    model = experiment.model
    if isinstance(model, EncoderDecoderConfig) and model.encoder.name.startswith("mit"):
        model.encoder.drop_path = 0.0
    for objective in experiment.objectives.values():
        if isinstance(objective, TeacherLabelsConfig) and objective.confidence == "batch_share":
            objective.threshold, objective.ignored_rows = 0.06, (4, 8)
        if isinstance(objective, FeatureDistanceConfig):
            # So near to the start, the gradient of a distance is a direction of rounding errors.
            objective.weight *= 1e-3
    experiment.train.precision = "float32"
    experiment.train.optimizer = PLAIN
    experiment.train.restart = None
    if isinstance(experiment.model, DeepLabV2Config):
        experiment.model.batch_norm_parts = 1
    for objective in experiment.objectives.values():
        if getattr(objective, "optimizer", None) is not None:
            objective.optimizer = PLAIN  # type: ignore[attr-defined]
    return experiment


def steps_of(experiment: Experiment) -> dict[str, Any]:
    """The losses of each step, as means over the processes, their counts, the state
    after the last, and what can be said of the first without labels."""
    data = open_training_data(experiment.data, seed=0, evaluated="cityscapes")
    run = start_run(experiment, num_classes=19, device=torch.device("cpu"))
    stream = batches(
        data.dataset,
        batch_size=experiment.train.batch_size,
        first_step=0,
        steps=STEPS,
        workers=0,
    )
    first = label_free_criteria(
        run.student,
        data.dataset.target,
        count=experiment.train.unlabeled_images,
        config=experiment.evaluation,
        label_space=data.label_space,
    )
    losses, counts = [], []
    for batch in stream:
        found = train_step(run, batch)
        losses.append({n: mean_over_ranks(value).item() for n, value in found.losses.items()})
        counts.append(of_all_processes(found.counts))
    state = run.state()
    networks = {"student": run.student, **run.objectives}
    gradients = {
        f"{network}.{name}": parameter.grad
        for network, module in networks.items()
        for name, parameter in module.named_parameters()
    }
    kept = {name: state[name] for name in ("student", "teacher", "objectives")}
    said = {"losses": losses, "counts": counts, "label_free": first}
    return {**said, "gradients": gradients, **kept}


def main() -> None:
    torch.set_num_threads(1)
    root, output, *names = sys.argv[1:]
    with process_group(torch.device("cpu")):
        found = {name: steps_of(comparable(name, Path(root))) for name in names}
        if is_main():
            torch.save(found, output)


if __name__ == "__main__":
    main()
