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

from experiments.toy_city import TOY_ROOT
from uda import snapshots
from uda.cli import clear_errors
from uda.data.files import read_image
from uda.data.labels import CITYSCAPES
from uda.data.registry import list_dataset
from uda.evaluation import predictions
from uda.pictures import Picture, comparison
from uda.reports import markdown_table

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path("snapshots/demo")
TARGET_IMAGES = f"{TOY_ROOT}/Cityscapes/leftImg8bit/train"
STEPS = 500
PICTURES = 5  # rows of comparison.png


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the four runs (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="of each run; fewer only to try the demo out"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    started = time.perf_counter()
    shutil.rmtree(FOLDER, ignore_errors=True)  # an earlier demo
    run("scripts/make_toy_city.py")

    common = ["--set", f"train.seed={arguments.seed}", *shortened(arguments.steps)]
    run_preset = ["train_uda.py", *common, "--preset"]
    last = f"GTA5_{arguments.steps}.pth"
    run(*run_preset, "toy_source_only", "--run", "demo/source_only")
    evaluate("source_only", last)
    evaluate("source_only", last, "--adapt-bn", TARGET_IMAGES, result="source_only_bn")

    start = ["--set", f"objectives.class_mix.start_step={150 * arguments.steps // STEPS}"]
    adapted = str(FOLDER / "adapted" / last)
    run(*run_preset, "toy_class_mix", "--run", "demo/adapted", *start)
    evaluate("adapted", last)
    run("pseudo_label.py", "--restore-from", adapted, "--threshold", "0.5",
        "--adapt-bn", TARGET_IMAGES)  # fmt: skip

    labels = ["--set", f"data.pseudo_labels={FOLDER}/adapted/pseudo_labels"]
    run(*run_preset, "toy_class_mix_student", "--run", "demo/student", "--restore-from", adapted,
        *labels)  # fmt: skip
    evaluate("student", last)
    run(*run_preset, "toy_oracle", "--run", "demo/oracle")
    evaluate("oracle", f"CITYS_{arguments.steps}.pth")

    results = {row: read_result(row) for row in
               ("source_only", "source_only_bn", "adapted", "student", "oracle")}  # fmt: skip
    draw_comparison(results, last)
    minutes = (time.perf_counter() - started) / 60
    summary = results | {"minutes": round(minutes, 2), "seed": arguments.seed}
    (FOLDER / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\nIoU in percent on the target's validation images, seed {arguments.seed}:\n")
    print(markdown_table(results))
    print(f"\n{minutes:.1f} minutes. Figures: {FOLDER}/summary.json, picture: "
          f"{FOLDER}/comparison.png")  # fmt: skip


def shortened(steps: int) -> list[str]:
    """The overrides of a run of `steps` instead of the presets' own."""
    if steps == STEPS:
        return []
    return ["--set", f"train.steps={steps}", "--set", f"train.warmup_steps={steps // 10}"]


def run(script: str, *arguments: str) -> None:
    """Shows a command and runs it; a failing one ends the demo, its own message being enough."""
    print(f"\n$ python {shlex.join([script, *arguments])}", flush=True)
    status = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments], check=False
    ).returncode
    if status:
        sys.exit(status)


def evaluate(network: str, snapshot: str, *options: str, result: str | None = None) -> None:
    """Scores a run's last snapshot into <result>.json, which is named after the run by default."""
    path = FOLDER / f"{result or network}.json"
    run("eval_single.py", "--restore-from", str(FOLDER / network / snapshot), *options,
        "--json", str(path))  # fmt: skip


def read_result(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return values


def draw_comparison(results: dict[str, dict[str, Any]], snapshot: str) -> None:
    """Writes comparison.png: target images, their labels, and what three networks make of them."""
    samples = list_dataset(Path(TOY_ROOT), "cityscapes", "val", labeled=True)
    samples = samples[:: max(len(samples) // PICTURES, 1)][:PICTURES]
    titles, columns = (
        ["target image", "labels"],
        [[np.asarray(read_image(s.image)) for s in samples]],
    )
    for name in ("source_only", "adapted", "student"):
        loaded = snapshots.load(FOLDER / name / snapshot)
        found = list(
            predictions(
                loaded.build(), samples, config=loaded.evaluation, label_space=CITYSCAPES, workers=0
            )
        )
        if len(columns) == 1:
            truth = [views.labels for views, _ in found if views.labels is not None]
            columns.append([CITYSCAPES.colorize(labels.numpy()) for labels in truth])
        titles.append(f"{name.replace('_', '-')}: mIoU {results[name]['miou']:.1f}")
        columns.append([CITYSCAPES.colorize(p.argmax(0).numpy()) for _, p in found])
    rows: list[list[Picture]] = [list(row) for row in zip(*columns, strict=True)]
    comparison(rows, titles, CITYSCAPES).save(FOLDER / "comparison.png")


if __name__ == "__main__":
    with clear_errors():
        main()
