"""Training a translation: one step after the other, until the last or a signal."""

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uda.checkpoints import snapshots
from uda.data.batch import Batch
from uda.data.known_files import KnownFiles
from uda.data.registry import check_sizes, layout_named, list_domain
from uda.data.sampling import TrainingDataset, batches
from uda.data.used_files import strings_in, used_files
from uda.training.nonfinite import on_the_host, spelled
from uda.training.signals import FROM_PYTHON, Stop, stop_on_signals
from uda.training.tracking import Tracker
from uda.translation.config import Translation, validate
from uda.translation.game import Game, Turn
from uda.translation.generator_files import GeneratorFile
from uda.translation.method import Pair
from uda.translation.run_folder import TranslationFolder
from uda.translation.semantic import SemanticLoss
from uda.translation.watch import Watch, figures, panel
from uda.utilities.config_tree import to_plain
from uda.utilities.distributed import check_batch_size, is_main, mean_over_ranks
from uda.utilities.errors import require
from uda.utilities.tensor_values import counted, not_finite

_ADVICE = "start again with a lower train.lr, or with train.precision=float32"


def train_translation(
    translation: Translation,
    path: Path,
    *,
    preset: str,
    device: torch.device,
    resume: bool = False,
    data_changed: bool = False,
    resume_with: str = FROM_PYTHON,
) -> Path:
    """Trains to the end in the folder `path`, and returns the file of the last generator.

    With `resume`, the run continues from its resume.pth and computes, bit for bit on the CPU, what
    it would have computed without the interruption; with `data_changed`, even if images have
    changed. Raises InputError before anything is written when the preset, its data or the folder
    cannot be used; FloatingPointError when a loss is not finite; once the run can be resumed,
    Stopped when a signal has ended it, LoaderLostError when a loader process was killed.
    """
    validate(translation)
    with stop_on_signals(resume_with) as stop:
        check_batch_size(translation.train.batch_size)
        dataset = open_pairs(translation)
        images = max(len(dataset.source), len(dataset.target))
        translation.train.check_steps("train", images)
        plain = to_plain(translation)
        files = KnownFiles()
        used = used_files(dataset, list(strings_in([plain["method"], plain["train"]])), files)
        files.finish()
        folder = TranslationFolder(path, preset, plain, samples_digest(dataset), used)
        with folder.opened(new=not resume):
            game = Game(translation, images=images, device=device)
            semantic = game.method.semantic
            if semantic is not None:
                _check_classes(semantic, translation)
            if resume:
                state = folder.resumed(translation, data_changed=data_changed)
                if state is not None:
                    game.load_state(state, origin=str(folder.resume))
            supervision = "none" if semantic is None else semantic.supervision
            run = _Run(game, dataset, folder, stop, supervision)
            return run.to_the_end()


def open_pairs(translation: Translation) -> TrainingDataset:
    """The images of both domains, without a look at labels; those of the source, if the semantic
    term learns from them."""
    data = translation.data
    assert data.source is not None, "validate() has seen to it"
    assert data.target is not None, "validate() has seen to it"
    source = list_domain(data, data.source, labeled=translation.method.reads_labels)
    target = list_domain(data, data.target, labeled=False)
    files = KnownFiles()
    for samples in (source, target):
        check_sizes(samples, files)
    files.finish()
    space = layout_named(data.source.datasets[0]).label_space
    return TrainingDataset(
        data,
        source=source,
        target=target,
        label_space=space,
        pseudo_labels=None,
        seed=translation.train.seed,
    )


def samples_digest(dataset: TrainingDataset) -> str:
    """Changes when an image is added or removed, as that changes the order of pairs."""
    names = [sample.name for domain in (dataset.source, dataset.target) for sample in domain]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _check_classes(semantic: SemanticLoss, translation: Translation) -> None:
    source = translation.data.source
    assert source is not None, "validate() has seen to it"
    for name in source.datasets:
        require(
            semantic.config.labels == "predicted"
            or layout_named(name).label_space.classes == semantic.classes,
            f"{semantic.config.snapshot} knows other classes than {name} is labeled with: use a "
            "network of these classes, or --set method.semantic.labels=predicted",
        )


class _Run:
    def __init__(
        self, game: Game, dataset: TrainingDataset, folder: TranslationFolder, stop: Stop,
        supervision: str,
    ) -> None:  # fmt: skip
        self.game, self.dataset, self.folder, self.stop = game, dataset, folder, stop
        self.supervision = supervision
        self.train = game.translation.train
        self._unchecked: list[tuple[int, dict[str, Tensor]]] = []
        self._watch = Watch(steps=game.last_step)

    def to_the_end(self) -> Path:
        """Makes the remaining steps and their records."""
        game, train = self.game, self.train
        with Tracker(
            self.folder.path,
            name=self.folder.path.name,
            steps=game.last_step,
            first_step=game.step,
            batch_size=train.batch_size,
        ) as tracker:
            tracker.say(self._described())
            self.stop.begin_steps()
            stream = batches(
                self.dataset,
                batch_size=train.batch_size,
                first_step=game.step,
                steps=game.last_step,
                workers=game.translation.data.workers,
            )
            while game.step < game.last_step:
                batch = self.stop.next_of(stream)
                if batch is None:
                    self._check()
                    self.folder.save_resume(game.state())
                    raise self.stop.stopped(game.step)
                turn = game.play(pair_of(batch, game.device))
                self._unchecked.append((game.step, turn.losses))
                tracker.advance()
                self._keep_records(tracker, turn)
        return self._generator_path()

    def _is_due(self, every: int) -> bool:
        return self.game.step % every == 0 or self.game.step == self.game.last_step

    def _keep_records(self, tracker: Tracker, turn: Turn) -> None:
        game, train = self.game, self.train
        if any(map(self._is_due, (train.log_every, train.snapshot_every, train.resume_every))):
            self._check()
        if self._is_due(train.log_every):
            with torch.no_grad():
                told = game.method.told_apart(turn.pair, turn.made)
            found = figures(told, turn.pair.source, turn.made["fake"])
            found = {name: mean_over_ranks(value) for name, value in found.items()}
            tracker.log(game.step, turn.losses | found, lr=game.lr)
            values = {name: float(value) for name, value in found.items()}
            for text in self._watch.warnings(game.step, values):
                tracker.say(f"step {game.step}: warning: {text}")
        if self._is_due(train.picture_every) and is_main():
            tracker.picture(game.step, "source", panel([turn.pair.source[0], *_of(turn, "fake",
                            "source again")]))  # fmt: skip
            tracker.picture(game.step, "target", panel([turn.pair.target[0], *_of(turn, "back",
                            "target again", "same")]))  # fmt: skip
        if self._is_due(train.snapshot_every) and is_main():
            self._save_generator()
        if self._is_due(train.resume_every):
            self.folder.save_resume(game.state())

    def _check(self) -> None:
        """Raises FloatingPointError, the same on all ranks, when a loss since the last check was
        not finite, or a weight is: it must not replace good ones."""
        unchecked, self._unchecked = self._unchecked, []
        found = on_the_host([losses for _, losses in unchecked])
        for (step, _), values in zip(unchecked, found, strict=True):
            if not all(map(math.isfinite, values.values())):
                raise FloatingPointError(
                    f"a loss is not finite at step {step}: {spelled(values)}; nothing was saved "
                    f"since: {_ADVICE}"
                )
        if places := not_finite(self.game.state()):
            raise FloatingPointError(
                f"after step {self.game.step}, {counted(places)} not finite; nothing was saved "
                f"since: {_ADVICE}"
            )

    def _save_generator(self) -> None:
        weights = self.game.method.generator.state_dict()
        GeneratorFile(
            preset=self.folder.preset,
            translation=self.folder.plain,
            generator=self.game.translation.generator,
            supervision=self.supervision,
            step=self.game.step,
            versions=snapshots.versions(),
            weights=weights,
        ).save(self._generator_path())

    def _generator_path(self) -> Path:
        return self.folder.path / f"translation_{self.game.step}.pth"

    def _described(self) -> str:
        game, dataset = self.game, self.dataset
        parameters = sum(p.numel() for p in game.method.generator.parameters()) / 1e6
        return "\n".join(
            [
                f"preset           {self.folder.preset}, seed {self.train.seed}",
                f"data             {len(dataset.source)} source images, {len(dataset.target)} "
                "target images without labels",
                f"method           {game.translation.method.title}, generator of {parameters:.2f} "
                "M parameters",
                f"supervision      {self.supervision} (of the target)",
                f"steps            {game.step} to {game.last_step}, on {game.device.type}",
                f"folder           {self.folder.path}",
            ]
        )


def _of(turn: Turn, *names: str) -> list[Tensor]:
    return [turn.made[name][0] for name in names if name in turn.made]


def pair_of(batch: Batch, device: torch.device) -> Pair:
    """A batch of the loader on the device."""

    def images(values: Tensor) -> Tensor:
        return values.to(device, non_blocking=True).float().div_(255)

    labels: Any = batch.source_labels
    labels = labels.to(device).long() if labels.numel() else None
    return Pair(images(batch.source_images), images(batch.target_images), labels)
