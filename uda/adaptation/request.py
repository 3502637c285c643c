"""What a user asks of an adaptation, and whether it can be had."""

from dataclasses import dataclass
from pathlib import Path

from uda.adaptation.method import Method, Subject, methods, stages_named
from uda.adaptation.outcome import scored_split
from uda.data.registry import list_dataset, root_of
from uda.data.training import open_labeled_split, require_known_classes
from uda.prediction.opened import OpenedNetwork
from uda.utilities.errors import require

AUTO = "auto"
AUTOMATIC = ("batch-norm", "self-training")  # its stages, where they fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asks for."""

    file: Path  # of the network
    images: str  # their folder, as a data set is named: with a slash
    methods: tuple[str, ...] = (AUTO,)  # stages in order; "a+b" learn together
    minutes: float = 10.0  # for everything
    steps: int | None = None  # of each stage that learns; None: as many as fit into the minutes
    source: str | None = None  # a data set with labels, if there is one
    data_root: str = ""
    scored_on: str | None = None  # a data set with labels to score on; nothing is chosen by it
    code: Path | None = None  # the user's file with the network, if it has one
    seed: int = 0
    workers: int = 0
    even_if_worse: bool = False  # keep what the criteria call worse
    data_changed: bool = False  # continue a stage although images or labels have changed

    @property
    def is_automatic(self) -> bool:
        """Whether the stages are chosen by what fits and what the criteria say."""
        return self.methods == (AUTO,)

    def check_data_sets(self, network: OpenedNetwork) -> None:
        """Raises InputError, before any work, for a data set that is not there or of other
        classes."""
        space = network.snapshot.label_space
        if self.source is not None:
            require_known_classes(self.source, space)
            root = root_of(self.data_root or network.configured_root, [self.source])
            list_dataset(root, self.source, "train", labeled=True)
        if self.scored_on is not None:
            root, name = root_of(self.data_root, [self.scored_on]), self.scored_on
            open_labeled_split(root, name, scored_split(name), label_space=space)

    def stages(self, subject: Subject) -> list[tuple[Method, ...]]:
        """What is done, in this order. Raises InputError for a request that part of it would not
        change, or that cannot be carried out."""
        if self.is_automatic:
            known = [methods()[name] for name in AUTOMATIC]
            fitting = [method for method in known if not method.unfit(subject)]
            why = "; ".join(f"{m.name}: {m.unfit(subject)}" for m in known)
            require(bool(fitting), f"nothing can be learned from these images ({why})")
            stages: list[tuple[Method, ...]] = [(method,) for method in fitting]
        else:
            stages = stages_named(self.methods, subject)
        used = [method for stage in stages for method in stage]
        require(
            self.source is None or any(method.needs_source for method in used),
            f"--source {self.source} is not used by --method {' '.join(self.methods)}: omit "
            "it, or choose a method that learns from it, such as --method class-mix",
        )
        require(
            self.steps is None or any(method.objectives is not None for method in used),
            f"--steps {self.steps}: --method {' '.join(self.methods)} makes no step: omit it",
        )
        require(
            not self.data_root or self.source is not None or self.scored_on is not None,
            f"--data-root {self.data_root} is not used: it is where --source and --validate are "
            "looked up: omit it",
        )
        return stages
