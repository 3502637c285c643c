"""Every method on the toy city over several seeds: what `make ladder` runs. It takes an hour.

Writes experiments/toy_ladder.json, toy_ladder.md and toy_ladder.png. Each run is one process with
one thread; as many as there are cores go at a time. What a former call has finished is not run
again: remove snapshots/ladder to start over. Unfinished runs start from the beginning.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ladder_chart import SOURCE_ONLY, check_matplotlib, draw, supervision_of
from uda.checkpoints import snapshots
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.experiments.toy_city import TOY_ROOT
from uda.utilities.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path("snapshots/ladder")
RESULTS = Path("experiments/toy_ladder")
TARGET_IMAGES = f"{TOY_ROOT}/Cityscapes/leftImg8bit/train"
ADAPT = ("--adapt-bn", TARGET_IMAGES)

_labeling = (
    threading.Lock()
)  # two rungs that continue from the same one may need its labels at once

Found = Mapping[str, Mapping[str, Any]]  # method -> its figures, as in toy_ladder.json


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One method of the ladder."""

    preset: str
    title: str
    labels_of: str | None = None  # the rung whose pseudo-labels and weights it starts from
    mistake: bool = False  # repeats a mistake of the experiment log


# The long ones first, so that no core waits for them in the end.
RUNGS = (
    Rung(preset="toy_adversarial_multi", title="adversarial, multi level"),
    Rung(preset="toy_adversarial", title="adversarial, single level"),
    Rung(preset="toy_source_only", title=SOURCE_ONLY),
    Rung(preset="toy_oracle", title="oracle"),
    Rung(preset="toy_class_mix", title="class mix (DACS)"),
    Rung(preset="toy_cut_mix", title="CutMix"),
    Rung(preset="toy_fix_match", title="FixMatch"),
    Rung(preset="toy_pseudo_label", title="pseudo-labels of source only",
         labels_of="toy_source_only"),
    Rung(preset="toy_class_mix_student", title="student of class mix", labels_of="toy_class_mix"),
    Rung(preset="toy_cut_mix_ground_truth", title="CutMix with target labels (C2)", mistake=True),
    Rung(preset="toy_cross_view", title="views that are not aligned (C3)", mistake=True),
    Rung(preset="toy_pseudo_label_mapped_twice", title="pseudo-labels mapped twice (C4)",
         labels_of="toy_class_mix", mistake=True),
    Rung(preset="toy_agc_source_only", title="GTA5 and CycleGTA5 mixed"),
    Rung(preset="toy_aagc_source_only", title="CycleGTA5 only"),
    Rung(preset="toy_memory", title="memory regularization"),
    Rung(preset="toy_entropy", title="entropy minimization"),
    Rung(preset="toy_target_shown", title="target shown, nothing learned from it"),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=at_least(1), default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", metavar="PRESET",
                        help="omit the other methods, and write to snapshots/ladder",
                        choices=[rung.preset for rung in RUNGS])  # fmt: skip
    options = parser.parse_args(arguments)
    check_matplotlib()
    rungs = [rung for rung in RUNGS if not options.only or rung.preset in options.only]
    command("make_toy_city", "scripts/make_toy_city.py")
    for later in (False, True):  # those that start from others, after them
        due = [(rung, seed) for seed in options.seeds for rung in rungs
               if (rung.labels_of is not None) == later]  # fmt: skip
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = {pool.submit(climb, rung, seed): (rung, seed) for rung, seed in due}
            for run in as_completed(runs):
                (rung, seed), minutes = runs[run], run.result()
                miou = result(rung, seed)["miou"]
                print(f"seed {seed}: {rung.title}: {miou:.2f} ({minutes:.1f} min)", flush=True)
    # What is not the whole ladder does not replace it.
    path = FOLDER / RESULTS.name if options.only else RESULTS
    write_results(collect(rungs, options.seeds), path)


def climb(rung: Rung, seed: int) -> float:
    """Trains a rung, unless it is there, and scores it with batch norm re-estimated; minutes of
    training."""
    folder = folder_of(rung, seed)
    clock, run = folder / "minutes.json", f"ladder/{folder.name}"
    if clock.exists():
        return float(json.loads(clock.read_text()))
    options: list[str] = []
    if rung.labels_of is not None:
        parent = next(other for other in RUNGS if other.preset == rung.labels_of)
        labels = f"data.pseudo_labels={labels_from(parent, seed)}"
        options = ["--restore-from", str(snapshot_of(parent, seed)), "--set", labels]
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    started = time.perf_counter()
    command(folder.name, "train_uda.py", "--preset", rung.preset, "--run", run,
            "--set", f"train.seed={seed}", *options)  # fmt: skip
    minutes = round((time.perf_counter() - started) / 60, 2)
    command(f"{folder.name}_bn", "eval_single.py", "--restore-from", str(snapshot_of(rung, seed)),
            *ADAPT, "--json", str(folder / "adapted.json"))  # fmt: skip
    clock.write_text(json.dumps(minutes))
    return minutes


def labels_from(parent: Rung, seed: int) -> Path:
    """The folder of a rung's pseudo-labels, with batch norm re-estimated, made if need be."""
    folder = folder_of(parent, seed)
    labels = folder / "pseudo_labels"
    with _labeling:
        if not labels.exists():
            command(f"{folder.name}_labels", "pseudo_label.py", "--restore-from",
                    str(snapshot_of(parent, seed)), "--threshold", "0.5", *ADAPT,
                    "--output", str(labels))  # fmt: skip
    return labels


def folder_of(rung: Rung, seed: int) -> Path:
    return FOLDER / f"{rung.preset}_{seed}"


def snapshot_of(rung: Rung, seed: int) -> Path:
    """The last snapshot of a rung's run."""
    found = list(folder_of(rung, seed).glob("*_*.pth"))
    if not found:
        raise InputError(f"{folder_of(rung, seed)} has no snapshot: run {rung.preset} as well")
    return max(found, key=lambda path: path.stat().st_mtime)


def command(log: str, script: str, *arguments: str) -> None:
    """Runs a script with one thread, what it says in a file; a failing one ends the ladder."""
    path = FOLDER / "logs" / f"{log}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        status = subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            check=False, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).returncode  # fmt: skip
    if status:
        raise InputError(f"{script} {' '.join(arguments)} failed; see {path}")


def result(rung: Rung, seed: int) -> dict[str, Any]:
    """What a run's last snapshot was scored."""
    snapshot = snapshots.load(snapshot_of(rung, seed))
    assert snapshot.scores is not None, "the last step of a run is evaluated"
    return {"supervision": snapshot.supervision} | snapshot.scores


def collect(rungs: Sequence[Rung], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Method -> its figures over the seeds, in percent, the best method last."""
    found = {}
    for rung in rungs:
        results = [result(rung, seed) for seed in seeds]
        adapted = [json.loads((folder_of(rung, s) / "adapted.json").read_text()) for s in seeds]
        minutes = [float((folder_of(rung, s) / "minutes.json").read_text()) for s in seeds]
        found[rung.title] = {
            "preset": rung.preset,
            "mistake": rung.mistake,
            "supervision": results[0]["supervision"],
            "seeds": list(seeds),
            "miou": [round(r["miou"], 2) for r in results],
            "miou_batch_norm_reestimated": [round(r["miou"], 2) for r in adapted],
            "minutes": round(mean(minutes), 2),
            "per_class": {
                name: [round(r["per_class"][name], 2) for r in results]
                for name in results[0]["per_class"]
            },
        }
    return dict(sorted(found.items(), key=lambda item: mean(item[1]["miou"])))


def write_results(found: Found, path: Path) -> None:
    """The three files, called `path` before their suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))
    draw(found, path.with_suffix(".png"))
    print(f"{path}.json, .md, .png")


def report(found: Found) -> str:
    """The tables as Markdown."""
    first = next(iter(found.values()))
    lines = [
        "# The toy city's ladder",
        "",
        f"mIoU in percent on the 80 validation images of the target, seeds "
        f"{', '.join(map(str, first['seeds']))}, last step; minutes of training with one thread, "
        "mean.",
        "Written by `make ladder` (scripts/ladder.py). The background of each row:",
        "[docs/what_the_log_taught.md](../docs/what_the_log_taught.md).",
        "",
        "![mIoU by method](toy_ladder.png)",
        "",
        "| method | preset | supervision | mIoU | range | batch norm re-estimated | minutes |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for title, values in found.items():
        miou, adapted = values["miou"], values["miou_batch_norm_reestimated"]
        mark = " (mistake)" if values["mistake"] else ""
        lines.append(
            f"| {title}{mark} | `{values['preset']}` | {values['supervision']} | "
            f"{mean(miou):.1f} | {min(miou):.1f} to {max(miou):.1f} | {mean(adapted):.1f} | "
            f"{values['minutes']:.1f} |"
        )
    if SOURCE_ONLY in found:
        lines += ["", below_source_only(found)]
    names = list(first["per_class"])
    lines += ["", "Mean IoU of each class:", "", f"| method | {' | '.join(names)} |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for title, values in found.items():
        cells = [f"{mean(values['per_class'][name]):.0f}" for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def below_source_only(found: Found) -> str:
    """A sentence on the methods without target labels, mistakes left out, that source only beats
    in the mean."""
    bar = mean(found[SOURCE_ONLY]["miou"])
    below = [
        f"{title} ({mean(values['miou']):.2f})"
        for title, values in found.items()
        if not values["mistake"]
        and supervision_of(values) != "ground truth"
        and mean(values["miou"]) < bar
    ]
    if not below:
        return f"No unsupervised method has a mean below that of {SOURCE_ONLY} ({bar:.2f})."
    return f"Unsupervised methods below {SOURCE_ONLY} ({bar:.2f}) in the mean: {', '.join(below)}."


if __name__ == "__main__":
    with clear_errors():
        main()
