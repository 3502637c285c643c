"""Checks that the objectives of a preset fit together: starts, and views added and read."""

from collections.abc import Mapping

from uda.objectives.base import ObjectiveConfig
from uda.utilities.errors import require

Objectives = Mapping[str, ObjectiveConfig]  # by their names in the preset
DOMAINS = frozenset({"source", "target"})  # views made of the data


def needs_of(config: ObjectiveConfig) -> frozenset[str]:
    """What an objective declares to need, and the domains that it reads."""
    return config.needs() | (_read_by(config) & DOMAINS)


def check_start_steps(objectives: Objectives, *, steps: int) -> None:
    """Something is learned from the first step on, and every objective starts before the end."""
    require(
        bool(objectives),
        "experiment.objectives is empty: there is nothing to learn from; "
        "add --set objectives.supervised=supervised",
    )
    starts = {name: config.start_step for name, config in objectives.items()}
    require(
        not starts or 0 in starts.values(),
        "every objective has a start_step above 0: nothing is learned before; "
        f"add --set objectives.{next(iter(starts), 'NAME')}.start_step=0",
    )
    for name, start in starts.items():
        require(
            start < steps,
            f"objectives.{name}.start_step is {start}: the run ends at step {steps}, so the "
            f"objective would never take part; add --set objectives.{name}.start_step=0, or "
            f"--set objectives.{name}=none",
        )


def check_views(objectives: Objectives) -> None:
    """Every view has one origin, and is added from the first step in which it is read."""
    read = {view for config in objectives.values() for view in _read_by(config)}
    origins = dict.fromkeys(DOMAINS, "")
    for name, config in objectives.items():
        for view in sorted(config.adds()):
            first = origins.setdefault(view, name)
            require(
                first == name,
                f"objective {name!r} adds the view {view!r}, as "
                + (f"objective {first!r}" if first else "the data")
                + " does: two views cannot have one name; "
                f"remove one, with --set objectives.{name}=none",
            )
        require(
            bool(_read_by(config) | (config.adds() & read)),
            f"objective {name!r} reads no view and adds none that is read: it can never act; "
            f"remove it, with --set objectives.{name}=none",
        )
    for reader, config in objectives.items():
        for view in sorted(_read_by(config) - DOMAINS):
            starts = [other.start_step for other in objectives.values() if view in other.adds()]
            start = min(starts, default=None)
            require(
                start is not None and start <= config.start_step,
                f"objective {reader!r} reads the view {view!r} from step {config.start_step} on, "
                + (
                    "which no other objective adds: add one that does, or remove this one, with "
                    f"--set objectives.{reader}=none"
                    if start is None
                    else f"which no other objective adds before step {start}: "
                    f"add --set objectives.{reader}.start_step={start}"
                ),
            )


def _read_by(config: ObjectiveConfig) -> frozenset[str]:
    return config.reads() | config.joint()


def check_watched_loss(objectives: Objectives) -> None:
    """There is a loss for `train.plateau` to watch, and no objective joins later that raises it."""
    fixed = {n: o.start_step for n, o in objectives.items() if o.learns_fixed_labels()}
    what = "train.plateau.watches is loss, that on labels which do not change, but"
    require(
        bool(fixed),
        f"{what} no objective of this preset learns such labels: use another schedule, with "
        "--set train.plateau=none",
    )
    for name, start in fixed.items():
        require(
            start == 0,
            f"{what} objective {name!r} joins at step {start}, where it would rise: add "
            f"--set objectives.{name}.start_step=0",
        )
