"""The whole job on the toy city, in minutes on two cores: what `make demo` runs.

Trains source-only, adapted, student and oracle with the three commands, each shown as it is run,
and ends with a table, snapshots/demo/summary.json and snapshots/demo/comparison.png.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from uda.checkpoints import snapshots
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.data.files import read_image
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import predictions
from uda.evaluation.reports import markdown_table
from uda.experiments import PRESETS
from uda.experiments.toy_city import TOY_ROOT
from uda.labels.spaces import CITYSCAPES
from uda.prediction.pictures import Picture, comparison
from uda.utilities.atomic_files import replacing, write_text_whole

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path("snapshots/demo")
ADAPTED = "toy_daformer"  # preset of the adapted network
ORACLE = "toy_oracle_long"  # as many steps as source_only and adapted together
TARGET_IMAGES = f"{TOY_ROOT}/Cityscapes/leftImg8bit/train"
NETWORKS = ("source_only", "adapted", "student", "oracle")  # folders of runs
PICTURES = 5  # rows of comparison.png


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the runs (default: 0)")
    seed = parser.parse_args().seed
    started = time.perf_counter()
    for name in NETWORKS:  # of an earlier demo
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    results = run_all(seed)
    draw_comparison(results)
    minutes = (time.perf_counter() - started) / 60
    summary = results | {"minutes": round(minutes, 2), "seed": seed}
    write_text_whole(FOLDER / "summary.json", json.dumps(summary, indent=2) + "\n")
    print(f"\nIoU in percent on the target's validation images, seed {seed}:\n")
    print(markdown_table(results))
    print(f"\n{minutes:.1f} minutes. Figures: {FOLDER}/summary.json, picture: "
          f"{FOLDER}/comparison.png")  # fmt: skip


def run_all(seed: int) -> dict[str, dict[str, Any]]:
    """Makes the data, trains the four networks, and returns every row of the table."""
    preset = ["train_uda.py", "--set", f"train.seed={seed}", "--preset"]
    pseudo_labels, rescored = FOLDER / "adapted" / "pseudo_labels", FOLDER / "source_only_bn.json"

    run("scripts/make_toy_city.py")
    run(*preset, "toy_source_only", "--run", "demo/source_only")
    source_only = str(snapshot_of("source_only"))
    run("eval_single.py", "--restore-from", source_only, "--adapt-bn", TARGET_IMAGES,
        "--json", str(rescored))  # fmt: skip
    run(*preset, ADAPTED, "--run", "demo/adapted", "--restore-from", source_only)
    adapted = str(snapshot_of("adapted"))
    run("pseudo_label.py", "--restore-from", adapted, "--threshold", "0.5",
        "--adapt-bn", TARGET_IMAGES)  # fmt: skip
    run(*preset, student_preset(), "--run", "demo/student", "--restore-from", adapted,
        "--set", f"data.pseudo_labels={pseudo_labels}")  # fmt: skip
    run(*preset, ORACLE, "--run", "demo/oracle")

    results = {"source_only": result_of("source_only")}
    results["source_only_bn"] = json.loads(rescored.read_text())
    return results | {name: result_of(name) for name in ("adapted", "student", "oracle")}


def student_preset() -> str:
    """The student of the adapted network's preset; that of class mix, if it has none of its own."""
    own = f"{ADAPTED}_student"
    return own if own in PRESETS else "toy_class_mix_student"


def snapshot_of(name: str) -> Path:
    """The last snapshot of a run; one that a signal has stopped ends the demo."""
    if not (FOLDER / name / "summary.json").exists():
        sys.exit(f"{name} was stopped before its end, and so is the demo; start it again")
    return max((FOLDER / name).glob("*_*.pth"), key=lambda path: path.stat().st_mtime)


def run(script: str, *arguments: str) -> None:
    """Shows a command and runs it; a failing one ends the demo, its own message being enough."""
    print(f"\n$ python {shlex.join([script, *arguments])}", flush=True)
    status = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments], check=False
    ).returncode
    if status:
        sys.exit(status)


def result_of(name: str) -> dict[str, Any]:
    """The scores that a run's last snapshot was saved with, and what the run saw of the labels."""
    snapshot = snapshots.load(snapshot_of(name))
    assert snapshot.scores is not None, "the last step of a run is evaluated"
    return {"supervision": snapshot.supervision} | snapshot.scores


def draw_comparison(results: dict[str, dict[str, Any]]) -> None:
    """Writes comparison.png: target images, their labels, and what three networks make of them."""
    samples = list_dataset(Path(TOY_ROOT), "cityscapes", "val", labeled=True)
    samples = samples[:: max(len(samples) // PICTURES, 1)][:PICTURES]
    titles, columns = (
        ["target image", "labels"],
        [[np.asarray(read_image(s.image)) for s in samples]],
    )
    for name in ("source_only", "adapted", "student"):
        loaded = snapshots.load(snapshot_of(name))
        found = list(
            predictions(
                loaded.build(), samples, config=loaded.evaluation, label_space=CITYSCAPES, workers=0
            )
        )
        if len(columns) == 1:
            truth = [views.labels for views, _ in found if views.labels is not None]
            columns.append([CITYSCAPES.colorize(labels.numpy()) for labels in truth])
        titles.append(f"{name.replace('_', '-')}: mIoU {results[name]['miou']:.1f}")
        columns.append([CITYSCAPES.colorize(p.labels.numpy()) for _, p in found])
    rows: list[list[Picture]] = [list(row) for row in zip(*columns, strict=True)]
    with replacing(FOLDER / "comparison.png") as file:
        comparison(rows, titles, CITYSCAPES).save(file, "PNG")


if __name__ == "__main__":
    with clear_errors():
        main()
