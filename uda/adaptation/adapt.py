"""A trained network, adapted to a folder of images, stage by stage; see docs/adapt.md."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from uda.adaptation.budget import steps_within
from uda.adaptation.criteria import Look, changed_shares, look_at
from uda.adaptation.method import Method, Subject
from uda.adaptation.outcome import reasons, scores_of
from uda.adaptation.record import ADAPTED, Record, judged
from uda.adaptation.request import Request
from uda.adaptation.stage import Images, Learning, reestimated, seen_size
from uda.adaptation.verdict import BETTER, WORSE, is_foreign, judge, statistics_moved
from uda.checkpoints.snapshots import Snapshot, save, snapshot_values, versions
from uda.checkpoints.snapshots import load as load_snapshot
from uda.data.files import read_header
from uda.data.registry import list_dataset, root_of
from uda.data.samples import evenly_spaced
from uda.data.translated_folder import images_digest
from uda.evaluation.evaluate import protocol_line
from uda.models.segmenter import Segmenter
from uda.prediction.opened import OpenedNetwork
from uda.prediction.side_by_side import save_pictures
from uda.training.loop import train
from uda.utilities.atomic_files import replacing
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError, require
from uda.utilities.tensor_values import weights_digest
from uda.utilities.weight_files import identity

FIRST = "old.pth"  # the network that is adapted, as this library stores it
_LOOKED_AT = 40  # images, evenly spaced over the folder
_SHOWN = 24  # images of the report: those that differ most

Bar = Callable[[Iterable[Any], int, str], Iterable[Any]]  # items, how many, what is done


@dataclass(slots=True)
class _Best:
    """The best network so far."""

    snapshot: Snapshot
    file: Path
    segmenter: Segmenter
    look: Look


@dataclass(slots=True)
class Adaptation:
    """One adaptation in its folder; `run` is all that is to be called."""

    network: OpenedNetwork
    request: Request
    output: Path
    device: torch.device
    command: str  # continues it when it was interrupted
    say: Callable[[str], None] = print
    bar: Bar = lambda items, total, name: items
    _began: float = field(default_factory=time.monotonic)
    _subject: Subject = field(init=False)
    _moved: float = 0.0  # how far the images' statistics are from the network's

    def run(self) -> Record:
        """Adapts the network and writes, into the folder: `adapted.pth`, the network to use, which
        is the old one where the criteria call the new one worse; a snapshot and a run for each
        stage; pictures; and the record of all that.

        An interrupted adaptation is continued by the same request. Raises InputError when a method
        cannot be used or the folder holds another adaptation, Stopped when a signal came.
        """
        self.request.check_data_sets(self.network)
        images = self._images()
        self._subject = Subject.of(
            self.network.segmenter, images=len(images.samples), source=self.request.source
        )
        stages = self.request.stages(self._subject)
        digest = weights_digest(self.network.snapshot.student)
        record = Record.opened(self.output, self._settings(images, digest))
        before = self._look(self.network.segmenter, images, "network")
        file = str(self.request.file)
        record.begun(before, images, self.network, file=file, digest=digest)
        first = self.output / FIRST
        if not first.exists():
            self._save(self.network.snapshot, self.network.segmenter, first)
        best = _Best(self._load(first), first, self.network.segmenter, before)
        for number, stage in enumerate(stages, 1):
            learns = stage[0].objectives is not None
            foreign = is_foreign(before, self._moved) if learns else ""
            if foreign and self.request.is_automatic:
                record.warn(f"{foreign}. Nothing was learned from its labels of these images")
                break
            if foreign:
                record.warn(foreign)
            best = self._applied(number, stage, best, images, record)
        self._finish(record, before, best, images)
        return record

    def _images(self) -> Images:
        """The images that can be read. Raises InputError when there are none."""
        name, config = self.request.images, self.network.config
        listed = list_dataset(root_of("", [name]), name, "train", labeled=False)
        samples, sizes, unreadable = [], [], {}
        for sample in listed:
            try:
                stored = read_header(sample.image).size_when(upright=bool(sample.upright))
            except InputError as error:
                unreadable[sample.stem] = str(error)
                continue
            samples.append(sample)
            sizes.append(seen_size(stored, config))
        require(
            bool(samples),
            f"none of the {len(listed)} images can be read; {next(iter(unreadable.values()), '')}",
        )
        return Images(name, tuple(samples), tuple(sizes), unreadable)

    def _settings(self, images: Images, digest: str) -> dict[str, Any]:
        """What the result depends on, and the command."""
        request = self.request
        return {
            "weights_sha256": digest, "images": request.images,
            "images_sha256": images_digest(images.samples), "methods": list(request.methods),
            "minutes": request.minutes, "steps": request.steps, "source": request.source,
            "seed": request.seed, "even_if_worse": request.even_if_worse,
            "protocol": protocol_line(self.network.config), "command": self.command,
        }  # fmt: skip

    def _look(self, segmenter: Segmenter, images: Images, name: str) -> Look:
        chosen = evenly_spaced(images.samples, _LOOKED_AT)
        return look_at(
            segmenter,
            chosen,
            config=self.network.config,
            label_space=self.network.snapshot.label_space,
            workers=self.request.workers,
            progress=lambda found: self.bar(found, len(chosen), f"look at {name}"),
        )

    def _applied(
        self,
        number: int,
        stage: tuple[Method, ...],
        best: _Best,
        images: Images,
        record: Record,
    ) -> _Best:
        """The network after the stage, if it is to be kept, or the one before."""
        name = "+".join(method.name for method in stage)
        noted = record.stage(number, name)
        file = self.output / f"stage{number}_{name}.pth"
        began = time.monotonic()
        if not file.exists():
            if stage[0].objectives is None:
                self._counted(best, images, file)
            else:
                self._learned(number, stage, best, images, record, noted, file)
        noted.setdefault("seconds", round(time.monotonic() - began, 1))  # or of a killed call
        snapshot = self._load(file)
        segmenter = snapshot.build().to(self.device)
        if stage[0].objectives is None:
            self._moved = statistics_moved(best.snapshot.student, snapshot.student)
        look = self._look(segmenter, images, name)
        learns = stage[0].objectives is not None
        self_taught = learns and not any(method.needs_source for method in stage)
        verdict = judge(best.look, look, self_taught=self_taught)
        kept = verdict.word == BETTER or self.request.even_if_worse
        kept = kept or (verdict.word != WORSE and not self.request.is_automatic)
        about = " ".join(method.about for method in stage)
        noted |= {"did": about, "snapshot": file.name}
        noted |= judged(best.look, look, verdict, kept=kept)
        record.write()
        self.say(f"{name}: {verdict.word}, {'kept' if kept else 'not kept'}")
        for reason in verdict.reasons:
            self.say(f"  {reason}")
        return _Best(snapshot, file, segmenter, look) if kept else best

    def _counted(self, best: _Best, images: Images, file: Path) -> None:
        """A stage that re-estimates batch norm."""
        segmenter = best.snapshot.build().to(self.device)
        reestimated(segmenter, images, self.network.config)
        self._save(best.snapshot, segmenter, file)

    def _learned(
        self,
        number: int,
        stage: tuple[Method, ...],
        best: _Best,
        images: Images,
        record: Record,
        noted: dict[str, Any],
        file: Path,
    ) -> None:
        """A stage that learns: a run of its own, whose teacher, if it has one, is the result."""
        request, name = self.request, noted["name"]
        learning = Learning(
            stage=stage,
            snapshot=best.snapshot,
            first_weights=best.file,
            images=images,
            subject=self._subject,
            data_root=request.data_root or self.network.configured_root,
            seed=request.seed,
            workers=request.workers,
            device=self.device,
            trained_with=self.network.snapshot.experiment.get("train"),
        )
        if not noted["steps"]:
            # A third is kept for the looks and pictures that follow.
            left = 60 * request.minutes - 1.5 * (time.monotonic() - self._began)
            noted["steps"] = request.steps or steps_within(left, learning, device=self.device)
            record.write()
        folder = self.output / f"stage{number}_{name}"
        experiment = learning.experiment(noted["steps"])
        train(
            experiment,
            folder,
            preset=f"uda adapt, {name}",
            device=self.device,
            resume=any(folder.glob("*.pth")),
            data_changed=request.data_changed,
            resume_with=self.command,
        )
        (path,) = folder.glob(f"*_{noted['steps']}.pth")
        learned = self._load(path)
        weights: Literal["student", "teacher"] = "student" if learned.teacher is None else "teacher"
        segmenter = learned.build(weights).to(self.device)
        if self._subject.batch_norms:  # a teacher has its own weights, but the student's statistics
            reestimated(segmenter, images, self.network.config)
        self._save(learned, segmenter, file)

    def _save(self, snapshot: Snapshot, segmenter: Segmenter, file: Path) -> None:
        """Writes a network so that every command opens it, with the protocol of this adaptation."""
        experiment = snapshot.experiment | {"evaluation": to_plain(self.network.config)}
        kept = replace(
            snapshot, experiment=experiment, student=segmenter.state_dict(), teacher=None,
            scores=None, versions=versions(),
            initial_weights=f"adapted from {identity(self.request.file)}"
            if self.request.file.is_file() else snapshot.initial_weights,
        )  # fmt: skip
        save(snapshot_values(kept), file)

    def _load(self, file: Path) -> Snapshot:
        """A snapshot in the folder; its network may be of the user's file, as the first one is."""
        code = None if self.network.snapshot.given_code is None else self.request.code
        return load_snapshot(file, code=code)

    def _finish(self, record: Record, before: Look, best: _Best, images: Images) -> None:
        """Names the result, draws what has changed, and scores both networks if labels exist."""
        changed = changed_shares(before, best.look)
        stems = {sample.stem: sample for sample in images.samples}
        order = sorted(range(len(changed)), key=lambda i: -changed[i])[:_SHOWN]
        old = self._load(self.output / FIRST).build().to(self.device)
        space = self.network.snapshot.label_space
        pictures = save_pictures(
            (old, best.segmenter),
            self.bar([stems[before.stems[i]] for i in order], len(order), "pictures"),
            self.output,
            config=self.network.config,
            label_space=space,
        )
        scores = None
        if self.request.scored_on is not None:
            scores = scores_of(
                {"old": old, "new": best.segmenter},
                self.request.scored_on,
                config=self.network.config,
                label_space=space,
                data_root=self.request.data_root,
                workers=self.request.workers,
            )
        with best.file.open("rb") as found, replacing(self.output / ADAPTED) as result:
            shutil.copyfileobj(found, result)
        adapted = any(stage["kept"] for stage in record.values["stages"])
        record.values |= {
            "outcome": "adapted" if adapted else "kept",
            "why": reasons(record.values["stages"]),
            "shares": {"old": before.shares().tolist(), "new": best.look.shares().tolist()},
            "pictures": [
                {"changed": changed[i]} | paths for i, paths in zip(order, pictures, strict=True)
            ],
            "scores": scores,
            "undo": "Nothing was overwritten: the old network is still "
            f"{self.request.file}, and uda predict --restore-from {self.request.file} uses it.",
        }
        record.write()
