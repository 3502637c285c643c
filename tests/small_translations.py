"""Presets of translations, shrunk to a fraction of a second per step."""

from pathlib import Path

from factories import tiny_snapshot
from tiny_runs import tiny_preset
from uda.checkpoints import snapshots
from uda.experiments.translations import TRANSLATIONS
from uda.translation.config import Translation

STEPS = 6


def small(name: str, root: Path) -> Translation:
    """A toy preset for 6 steps on crops of 32x64."""
    translation = TRANSLATIONS[name]()
    data, train = translation.data, translation.train
    data.root, data.crop = str(root), (32, 64)
    for domain in (data.source, data.target):
        assert domain is not None
        domain.size = (64, 128)
    translation.generator.blocks = 1
    train.precision = "float32"
    train.steps, train.log_every, train.picture_every = STEPS, 1, 2
    train.snapshot_every, train.resume_every = 2, 2
    return translation


def write_segmenter(root: Path, folder: Path) -> str:
    """The file of a network of the source, for the semantic term."""
    path = folder / "GTA5_1.pth"
    snapshot = tiny_snapshot(tiny_preset("toy_source_only", root))
    snapshots.save(snapshots.snapshot_values(snapshot), path)
    return str(path)
