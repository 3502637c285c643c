"""Every method on the toy city over several seeds: what `make ladder` runs. From nothing it takes
hours; what experiments/toy_ladder.json has of a method whose settings have not changed since is
kept, so that seconds to minutes are usual.

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
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from statistics import mean
from typing import Any

from ladder_chart import check_matplotlib
from ladder_digests import changes, digest_of, steps_of
from ladder_figures import Figures, has_figures, joined, known_figures, write_results
from ladder_rungs import FOLDER, RUNGS, THRESHOLD, Rung, descendants, rung_named, with_needed
from ladder_translations import data_of, translate
from uda.checkpoints import snapshots
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.experiments.toy_city import TOY_ROOT
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path("experiments/toy_ladder")
TARGET_IMAGES = f"{TOY_ROOT}/Cityscapes/leftImg8bit/train"
ADAPT = ("--adapt-bn", TARGET_IMAGES)

_labeling: dict[Path, threading.Lock] = {}  # two rungs may need the same labels at once

Run = tuple[Rung, int]  # with a seed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=at_least(1), default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", metavar="METHOD",
                        help="leave the figures of the other methods as they are",
                        choices=[rung.key for rung in RUNGS])  # fmt: skip
    parser.add_argument("--all", action="store_true",
                        help=f"take no figures from {RESULTS}.json, but those of "
                        f"{FOLDER}, and run what is missing there")  # fmt: skip
    options = parser.parse_args(arguments)
    check_matplotlib()
    rungs = [rung for rung in RUNGS if not options.only or rung.key in options.only]
    known = known_figures(RESULTS)
    due = {
        rung.key: [seed for seed in dict.fromkeys(options.seeds)
                   if options.all or not has_figures(known.get(rung.key), rung, seed)]
        for rung in rungs
    }  # fmt: skip
    wanted = [(rung, seed) for rung in rungs for seed in due[rung.key]]
    discard_outdated(wanted)
    if runs := missing_runs(wanted):
        command("make_toy_city", "scripts/make_toy_city.py")
        run_all(runs, options.jobs, known)
    for rung in rungs:
        if due[rung.key]:
            old = known.get(rung.key, {})
            kept = old if old.get("digest") == digest_of(rung) else {}
            known[rung.key] = joined(kept, collect(rung, due[rung.key]))
    write_results(known, RESULTS)


def discard_outdated(wanted: Sequence[Run]) -> None:
    """Runs of settings that have changed since count as not finished, and with them all that
    started from them."""
    for seed in dict.fromkeys(seed for _, seed in wanted):
        for rung in with_needed([r for r, s in wanted if s == seed]):
            if rung.mean_of or not clock_of(rung, seed).exists():
                continue
            stored = snapshots.load(snapshot_of(rung, seed)).experiment
            changed = changes(rung.preset, stored)
            if rung.translated_by and stored["data"]["root"] != str(data_of(rung, seed)):
                changed.append("its translation")
            if changed:
                print(f"{folder_of(rung, seed)} is run again: {', '.join(changed)} changed since")
                for outdated in (rung, *descendants(rung)):
                    clock_of(outdated, seed).unlink(missing_ok=True)


def missing_runs(wanted: Sequence[Run]) -> list[Run]:
    """What is not finished of these and of what they need, which has to be finished for no other
    reason."""
    missing: dict[Run, None] = {}

    def add(rung: Rung, seed: int) -> None:
        if not clock_of(rung, seed).exists():
            for key in rung.needs:
                add(rung_named(key), seed)
            missing[rung, seed] = None

    for rung, seed in wanted:
        add(rung, seed)
    return list(missing)


def run_all(runs: Sequence[Run], jobs: int, known: Mapping[str, Figures]) -> None:
    """`jobs` at a time, each after those that it needs; seed by seed, and of a seed first what most
    has to wait for, so that no core waits in the end."""
    rungs = list(dict.fromkeys(rung for rung, _ in runs))

    def minutes_after(rung: Rung) -> float:
        own = known.get(rung.key, {}).get("minutes", steps_of(rung) / 200)
        later = (minutes_after(other) for other in rungs if rung.key in other.needs)
        return float(own) + max(later, default=0.0)

    longest = {rung: -minutes_after(rung) for rung in rungs}
    waiting = sorted(runs, key=lambda run: (run[1], longest[run[0]]))
    going: dict[Future[float], Run] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or going:
            unfinished = {(rung.key, seed) for rung, seed in (*waiting, *going.values())}
            ready = [
                (rung, seed) for rung, seed in waiting
                if not any((key, seed) in unfinished for key in rung.needs)
            ]  # fmt: skip
            for run in ready[: jobs - len(going)]:
                waiting.remove(run)
                going[pool.submit(climb, *run)] = run
            for ended in wait(going, return_when=FIRST_COMPLETED).done:
                rung, seed = going.pop(ended)
                took = ended.result()
                miou = result(rung, seed)["miou"]
                print(f"seed {seed}: {rung.title}: {miou:.2f} ({took:.1f} min)", flush=True)


def climb(rung: Rung, seed: int) -> float:
    """Trains a rung, unless it is there, and scores it with batch norm re-estimated; minutes of
    training, that of its translation and the translating among them."""
    folder, clock = folder_of(rung, seed), clock_of(rung, seed)
    if clock.exists():
        return float(json.loads(clock.read_text()))
    shutil.rmtree(folder, ignore_errors=True)  # of a run that did not finish
    minutes = translated(rung, seed) if rung.translated_by else 0.0
    started = time.perf_counter()
    if rung.mean_of:
        folder.mkdir(parents=True)
        command(folder.name, "eval_single.py", *networks_of(rung, seed),
                "--json", str(folder / "scores.json"))  # fmt: skip
    else:
        command(folder.name, "train_uda.py", "--preset", rung.preset,
                "--run", f"ladder/{folder.name}", "--set", f"train.seed={seed}",
                *start_of(rung, seed))  # fmt: skip
        minutes = round(minutes + (time.perf_counter() - started) / 60, 2)
    command(f"{folder.name}_bn", "eval_single.py", *networks_of(rung, seed),
            *ADAPT, "--json", str(folder / "adapted.json"))  # fmt: skip
    write_text_whole(clock, json.dumps(minutes))
    return minutes


def start_of(rung: Rung, seed: int) -> list[str]:
    """The options of train_uda.py that name what others have left."""
    options: list[str] = []
    if rung.starts_from is not None:
        options += ["--restore-from", str(snapshot_of(rung_named(rung.starts_from), seed))]
    if rung.labels_of is not None:
        labels = labels_from(rung_named(rung.labels_of), seed, rung.labeling)
        options += ["--set", f"data.pseudo_labels={labels}"]
    if rung.network_of is not None:
        network = snapshot_of(rung_named(rung.network_of), seed)
        options += ["--set", f"objectives.distillation.network={network}"]
    if rung.translated_by:
        options += ["--set", f"data.root={data_of(rung, seed)}"]
    return options


def translated(rung: Rung, seed: int) -> float:
    """Makes the images that a rung learns from, if need be; minutes that it took."""
    asked = None if rung.segmenter_of is None else snapshot_of(rung_named(rung.segmenter_of), seed)
    return translate(rung, seed, command, segmenter=asked)


def labels_from(parent: Rung, seed: int, labeling: Sequence[str] = THRESHOLD) -> Path:
    """The folder of a rung's pseudo-labels, with batch norm re-estimated, made if need be."""
    folder = folder_of(parent, seed)
    rule = "" if labeling == THRESHOLD else "_" + "_".join(word.strip("-") for word in labeling)
    labels = folder / f"pseudo_labels{rule}"
    with _labeling.setdefault(labels, threading.Lock()):
        if not labels.exists():
            command(f"{folder.name}_labels{rule}", "pseudo_label.py", *networks_of(parent, seed),
                    *labeling, *ADAPT, "--output", str(labels))  # fmt: skip
    return labels


def networks_of(rung: Rung, seed: int) -> list[str]:
    """The options that name a rung's network, or the networks that it is the mean of."""
    rungs = [rung_named(key) for key in rung.mean_of] or [rung]
    first, *others = (str(snapshot_of(member, seed)) for member in rungs)
    return ["--restore-from", first, *(["--with", *others] if others else [])]


def folder_of(rung: Rung, seed: int) -> Path:
    return FOLDER / f"{rung.key}_{seed}"


def clock_of(rung: Rung, seed: int) -> Path:
    """The file that a finished run has."""
    return folder_of(rung, seed) / "minutes.json"


def snapshot_of(rung: Rung, seed: int) -> Path:
    """The last snapshot of a rung's run."""
    found = list(folder_of(rung, seed).glob("*_*.pth"))
    if not found:
        raise InputError(
            f"{folder_of(rung, seed)} has no snapshot: remove that folder to run it again"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def command(log: str, script: str, *arguments: str) -> None:
    """Runs a script, or uda, with one thread, what it says in a file; a failing one ends the
    ladder."""
    path = FOLDER / "logs" / f"{log}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        status = subprocess.run(
            [sys.executable, *(["-m", "uda"] if script == "uda" else [str(REPOSITORY / script)]),
             *arguments],
            check=False, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).returncode  # fmt: skip
    if status:
        raise InputError(f"{script} {' '.join(arguments)} failed; see {path}")


def result(rung: Rung, seed: int) -> dict[str, Any]:
    """What a run's last snapshot was scored, or the mean of several."""
    if rung.mean_of:
        found: dict[str, Any] = json.loads((folder_of(rung, seed) / "scores.json").read_text())
        return found
    snapshot = snapshots.load(snapshot_of(rung, seed))
    assert snapshot.scores is not None, "the last step of a run is evaluated"
    return {"supervision": snapshot.supervision} | snapshot.scores


def collect(rung: Rung, seeds: Sequence[int]) -> Figures:
    """A method's figures over the seeds, in percent."""
    results = [result(rung, seed) for seed in seeds]
    adapted = [json.loads((folder_of(rung, s) / "adapted.json").read_text()) for s in seeds]
    minutes = [float(clock_of(rung, s).read_text()) for s in seeds]
    return {
        "digest": digest_of(rung),
        "steps": steps_of(rung),
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


if __name__ == "__main__":
    with clear_errors():
        main()
