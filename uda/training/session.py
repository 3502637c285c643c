"""Session: a run and everything that goes with it from its first step to its last."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from uda.data.samples import Sample
from uda.experiment import Experiment
from uda.labels.spaces import LabelSpace
from uda.training.nonfinite import FiniteCheck
from uda.training.run import Run
from uda.training.run_folder import RunFolder
from uda.training.signals import Stop
from uda.training.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Session:
    """A run, the folder and the records that it writes, what it is scored on, and what may end it
    early."""

    run: Run
    folder: RunFolder
    validation: Sequence[Sample]
    stop: Stop
    tracker: Tracker
    finite: FiniteCheck

    @property
    def experiment(self) -> Experiment:
        """The settings of the run."""
        return self.run.experiment

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the run."""
        return self.folder.data.label_space

    def is_due(self, every: int) -> bool:
        """Whether what happens every so many steps is due now; at the last step, everything is."""
        return self.experiment.train.is_due(self.run.step, every)

    def save_resume(self, *, unfinished: bool = False) -> None:
        """Saves all that `--resume` continues from; `unfinished`: records of this step are
        missing."""
        self.folder.save_resume(self.run.state(), unfinished=unfinished)


@contextmanager
def open_session(
    run: Run,
    folder: RunFolder,
    validation: Sequence[Sample],
    stop: Stop,
    *,
    unfinished: bool,
) -> Iterator[Session]:
    """Opens the records of a run at its current step, whose own records may be `unfinished`."""
    train = run.experiment.train
    with Tracker(
        folder.path,
        name=folder.path.name,
        steps=train.steps,
        first_step=run.step,
        batch_size=train.batch_size,
        unfinished=unfinished,
    ) as tracker:
        finite = FiniteCheck(run, folder, tracker)
        yield Session(run, folder, validation, stop, tracker, finite)
