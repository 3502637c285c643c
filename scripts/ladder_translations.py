"""The data of the ladder's rungs that learn from translated images, made by `uda translate`."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ladder_digests import translation_digest
from ladder_rungs import FOLDER, Rung
from uda.experiments.toy_city import TOY_ROOT
from uda.experiments.translations import TRANSLATIONS
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import InputError

_translating: dict[Path, threading.Lock] = {}  # two rungs may need the same images at once


def data_of(rung: Rung, seed: int) -> Path:
    """The data root of a rung on translated images; another one for other settings."""
    return FOLDER / f"translated/{rung.translated_by}_{seed}_{translation_digest(rung)[:8]}"


def translate(
    rung: Rung, seed: int, command: Callable[..., None], *, segmenter: Path | None
) -> float:
    """Makes the data root of a rung, unless it is there: links to the toy city and its source
    translated. Minutes that it took, the training of the translation among them.

    command: as `ladder.command`; segmenter: what the semantic term of the translation asks
    """
    root, log = data_of(rung, seed), f"{rung.translated_by}_{seed}"
    clock = root / "minutes.json"  # a finished one has it
    with _translating.setdefault(root, threading.Lock()):
        if clock.exists():
            return float(json.loads(clock.read_text()))
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for name in ("GTA5", "Cityscapes", "toy_city.json"):
            (root / name).symlink_to((Path(TOY_ROOT) / name).resolve())
        started = time.perf_counter()
        how = ["--method", rung.translated_by, "--target", "cityscapes", "--seed", str(seed)]
        if rung.translated_by in TRANSLATIONS:
            run = root / "translation"
            asked = [] if segmenter is None else [
                "--set", f"method.semantic.snapshot={segmenter}"
            ]  # fmt: skip
            command(f"{log}_translation", "uda", "train-translation",
                    "--preset", rung.translated_by, "--run", str(run.relative_to("snapshots")),
                    "--set", f"train.seed={seed}", *asked)  # fmt: skip
            how = ["--restore-from", str(_generator(run))]
        command(f"{log}_translate", "uda", "translate", *how, "--dataset", "gta5",
                "--data-root", str(root), "--output", str(root / "CycleGTA5"))  # fmt: skip
        minutes = round((time.perf_counter() - started) / 60, 2)
        write_text_whole(clock, json.dumps(minutes))
    return minutes


def _generator(run: Path) -> Path:
    """The last one of a run."""
    found = list(run.glob("translation_*.pth"))
    if not found:
        raise InputError(f"{run} has no generator: give the same command again")
    return max(found, key=lambda path: int(path.stem.rpartition("_")[2]))
