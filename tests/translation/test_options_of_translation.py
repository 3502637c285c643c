"""Every option of a translation changes what a run does, or is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from small_translations import write_segmenter
from tiny_runs import CPU, flat
from uda.data.sampling import batches
from uda.experiments.translations import TRANSLATIONS
from uda.translation.config import Translation, validate
from uda.translation.game import Game
from uda.translation.semantic import SemanticConfig
from uda.translation.trainer import open_pairs, pair_of
from uda.utilities.errors import InputError

# Other values, by dotted path: some allowed, some not. True: refused.
OPTIONS: dict[str, tuple[tuple[Any, bool], ...]] = {
    "data.crop": (((32, 48), False), ((28, 64), True), ((0, 64), True)),
    "data.source": ((None, True),),
    "data.target": ((None, True),),
    "data.source.first": ((4, False), (0, True)),
    "data.source.mirror": ((False, False),),
    "data.source.crop": (((32, 32), False), ((16, 64), True)),
    "data.source.crop_label_values": ((3, True),),
    "data.source.crop_max_share": ((0.5, True),),
    "data.source.crop_tries": ((3, True),),
    "data.source.ignored_borders": (((1, 1, 1, 1), True),),
    "data.target.crop_max_share": ((0.5, True),),
    "data.target.ignored_borders": (((1, 1, 1, 1), True),),
    "data.target_ground_truth": ((True, True),),
    "data.pseudo_labels": (("folder", True),),
    "data.pseudo_labels_mapped_twice": ((True, True),),
    "generator.blocks": ((2, False), (0, True), (65, True)),
    "generator.width": ((17, False), (15, True)),
    "generator.dropout": ((True, False),),
    "generator.antialias": ((True, False), (False, False)),
    "method.discriminator_width": ((8, False), (0, True), (-1, True)),
    "method.cycle": ((5.0, False), (0.0, True), (-1.0, True)),
    "method.identity": ((0.25, False), (0.0, False), (-1.0, True), (False, False)),
    "method.pool": ((0, False), (-1, True)),
    "method.contrast": ((0.5, False), (0.0, True)),
    "method.temperature": ((0.1, False), (0.0, True)),
    "method.patches": ((9, False), (1, True), (0, True)),
    "method.semantic.weight": ((0.5, False), (0.0, True)),
    "method.semantic.labels": (("predicted", False),),
    "train.epochs": ((1, False), (0, True)),
    "train.decay_epochs": ((0, False), (-1, True)),
    "train.epoch_images": ((2, False), (0, True)),
    "train.steps": ((3, False), (0, True)),
    "train.batch_size": ((2, False), (0, True)),
    "train.seed": ((1, False), (-1, True)),
    "train.lr": ((1e-3, False), (0.0, True)),
    "train.betas": (((0.5, 0.9), False), ((0.5, 1.0), True)),
    "train.precision": (("bfloat16", False),),
    "train.log_every": ((0, True),),
    "train.picture_every": ((0, True),),
    "train.snapshot_every": ((0, True),),
    "train.resume_every": ((0, True),),
}


def tiny(name: str, root: Path, segmenter: str) -> Translation:
    translation = TRANSLATIONS[name]()
    data, train = translation.data, translation.train
    data.root, data.crop = str(root), (32, 64)
    for domain in (data.source, data.target):
        assert domain is not None
        domain.size = (64, 128)
    translation.generator.blocks, translation.method.discriminator_width = 1, 16
    train.precision, train.epoch_images = "float32", 1
    train.epochs, train.decay_epochs, train.steps = 2, 2, 4
    if name.endswith("semantic"):
        translation.method.semantic = SemanticConfig(snapshot=segmenter)
    if name == "toy_cyclegan":
        translation.method.pool = 1  # type: ignore[attr-defined]  # full at once
    return translation


def learned(translation: Translation) -> dict[str, object]:
    validate(translation)
    game = Game(translation, images=6, device=CPU)
    stream = batches(
        open_pairs(translation), batch_size=translation.train.batch_size, first_step=0,
        steps=game.last_step, workers=0,
    )  # fmt: skip
    for batch in stream:
        game.play(pair_of(batch, CPU))
    return flat({"networks": game.state()["networks"], "step": game.step})


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    def equal(left: object, right: object) -> bool:
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            return torch.equal(left, right)
        return left == right

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def segmenter(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_segmenter(toy_root, tmp_path_factory.mktemp("segmenter"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy_cyclegan", "toy_cut", "toy_cut_semantic"])
def test_every_option_matters_or_is_refused(name: str, toy_root: Path, segmenter: str) -> None:
    before, begun = learned(tiny(name, toy_root, segmenter)), tiny(name, toy_root, segmenter)
    wrong = []
    for path, others in OPTIONS.items():
        *parents, last = path.split(".")
        # The semantic case walks what is its own.
        if name.endswith("semantic") != path.startswith("method.semantic"):
            continue
        for value, refused in others:
            translation = copy.deepcopy(begun)
            owner: Any = translation
            for parent in parents:
                owner = getattr(owner, parent)
            if not hasattr(owner, last):
                continue
            own = getattr(owner, last)
            # A method's field of that name may be a switch; or it has that value already.
            if isinstance(own, bool) != isinstance(value, bool) or own == value:
                continue
            setattr(owner, last, value)
            try:
                validate(translation)
                after = None if refused else learned(translation)
            except InputError as error:
                if not refused:
                    wrong.append(f"{path}={value} is refused: {error}")
                elif path.rpartition(".")[2] not in str(error):
                    wrong.append(f"{path}={value}: the refusal does not name it: {error}")
                continue
            if refused:
                wrong.append(f"{path}={value} is accepted")
            elif after is not None and same(before, after):
                wrong.append(f"{path}={value} changes nothing")
    assert wrong == []
