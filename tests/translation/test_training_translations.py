"""The trainer of translations: its losses, who pays them, and runs that are interrupted."""

import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from shells import Shell
from small_translations import STEPS, small, write_segmenter
from tiny_runs import CPU, metrics
from uda.data.sampling import batches
from uda.experiments.translations import TRANSLATIONS
from uda.training.signals import Stopped
from uda.translation.config import Translation, validate
from uda.translation.cut import Cut
from uda.translation.cyclegan import CycleGan, CycleGanConfig
from uda.translation.game import Game, Turn
from uda.translation.generator_files import generator_from, is_generator_file
from uda.translation.method import Pair
from uda.translation.semantic import SemanticConfig, SemanticLoss
from uda.translation.trainer import open_pairs, pair_of, train_translation
from uda.translation.watch import Watch
from uda.utilities.errors import InputError
from uda.utilities.weight_files import read_weights


@pytest.fixture(scope="module")
def segmenter(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_segmenter(toy_root, tmp_path_factory.mktemp("segmenter"))


def game_of(translation: Translation) -> tuple[Game, Pair]:
    validate(translation)
    dataset = open_pairs(translation)
    batch = next(iter(batches(dataset, batch_size=1, first_step=0, steps=1, workers=0)))
    return Game(translation, images=6, device=CPU), pair_of(batch, CPU)


def weights(folder: Path) -> dict[str, Any]:
    content = read_weights(folder / "resume.pth", expected="", instead="")
    assert isinstance(content, dict)
    return content["state"]


def run(translation: Translation, folder: Path, *, resume: bool = False) -> None:
    train_translation(translation, folder, preset="small", device=CPU, resume=resume)


def equal(one: Any, other: Any) -> bool:  # noqa: ANN401  # trees of tensors
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def test_cyclegan_pays_what_its_equations_say(toy_root: Path) -> None:
    """The first step's terms, written out."""
    game, pair = game_of(small("toy_cyclegan", toy_root))
    method = game.method
    assert isinstance(method, CycleGan)
    with torch.no_grad():
        fake, back = method.generator(pair.source), method.back(pair.target)
        there_and_back = (method.back(fake) - pair.source).abs().mean()
        back_and_there = (method.generator(back) - pair.target).abs().mean()
        kept = (method.generator(pair.target) - pair.target).abs().mean()
        kept = kept + (method.back(pair.source) - pair.source).abs().mean()
        expected = {
            "loss/generators/fool_target": (method.of_target(fake) - 1).square().mean(),
            "loss/generators/fool_source": (method.of_source(back) - 1).square().mean(),
            # The networks' range is [-1, 1]: distances are twice those of [0, 1].
            "loss/generators/cycle": 10 * 2 * (there_and_back + back_and_there),
            "loss/generators/identity": 5 * 2 * kept,
            "loss/discriminators/of_target": (
                (method.of_target(pair.target) - 1).square().mean()
                + method.of_target(fake).square().mean()
            )
            / 2,
        }
    losses = game.play(pair).losses
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("name", ["toy_cyclegan", "toy_cut"])
def test_each_player_moves_its_own_networks(name: str, toy_root: Path) -> None:
    """The gradient of one player's losses reaches no network of the other."""
    game, pair = game_of(small(name, toy_root))
    made = game.method.translated(pair)
    for player in game.method.order:
        for other, networks in game.players.items():
            networks.requires_grad_(other == player)
        losses = game.method.losses(player, pair, made, torch.Generator())
        game.method.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward(retain_graph=True)
        for other, networks in game.players.items():
            moved = [p for p in networks.parameters() if p.grad is not None and p.grad.any()]
            assert bool(moved) == (other == player), (player, other)


def test_cut_compares_places_and_leaves_its_keys(toy_root: Path) -> None:
    """An image is nearer to itself than to another; the input's features are constants."""
    game, pair = game_of(small("toy_cut", toy_root))
    method = game.method
    assert isinstance(method, Cut)
    source = pair.source.clone().requires_grad_()
    chance = torch.Generator().manual_seed(0)
    itself = method.contrast(source, pair.source, chance)
    assert itself < method.contrast(source, torch.rand_like(source), chance)
    method.contrast(source, pair.source, chance).backward()
    assert source.grad is None or not source.grad.any()


@pytest.mark.parametrize("name", ["toy_cyclegan_semantic", "toy_cut_semantic"])
def test_the_semantic_term_is_the_frozen_networks(
    name: str, toy_root: Path, segmenter: str
) -> None:
    translation = small(name, toy_root)
    translation.method.semantic = SemanticConfig(snapshot=segmenter)
    game, pair = game_of(translation)
    assert pair.source_labels is not None
    semantic = game.method.semantic
    assert isinstance(semantic, SemanticLoss)
    segmented = semantic.segmenter
    before = {n: v.clone() for n, v in semantic.state_dict().items()}
    with torch.no_grad():
        logits = segmented(game.method.generator(pair.source)).logits
        expected = torch.nn.functional.cross_entropy(logits, pair.source_labels, ignore_index=255)
    losses = game.play(pair).losses
    torch.testing.assert_close(losses["loss/generators/semantic"], expected)
    game.method.train()
    assert not segmented.training
    assert equal(before, semantic.state_dict())
    assert not any("segmenter" in name for name in game.state()["networks"]["generators"])


@pytest.mark.slow
def test_runs_are_functions_of_preset_and_seed(toy_root: Path, tmp_path: Path) -> None:
    """With 0 and 2 loader processes, interrupted by a signal, or resumed from the file before."""
    for name in ("toy_cyclegan", "toy_cut"):
        whole, other = tmp_path / name / "whole", tmp_path / name / "other"
        translation = small(name, toy_root)
        run(translation, whole)
        play = Game.play

        def stopped_at_3(game: Game, pair: Pair, play: Any = play) -> Turn:  # noqa: ANN401
            if game.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return play(game, pair)

        translation.data.workers = 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Game, "play", stopped_at_3)
            with pytest.raises(Stopped, match="after step 4"):
                run(translation, other)
        (other / "resume.pth").write_bytes(b"damaged")  # what a disk can do: the one before counts
        run(translation, other, resume=True)
        assert equal(weights(whole), weights(other))
        lines = [metrics(folder) for folder in (whole, other)]
        for one, again in zip(*lines, strict=True):
            assert one == again


@pytest.mark.slow
def test_no_label_of_the_target_is_opened(toy_root: Path, tmp_path: Path) -> None:
    """Nor of the source, where the semantic term does not ask: they are not there."""
    root = tmp_path / "bare"
    shutil.copytree(toy_root, root)
    for folder in (*root.glob("*/labels"), root / "Cityscapes" / "gtFine"):
        shutil.rmtree(folder)
    run(small("toy_cyclegan", toy_root), tmp_path / "with")
    run(small("toy_cyclegan", root), tmp_path / "without")
    assert equal(weights(tmp_path / "with"), weights(tmp_path / "without"))


def test_a_generator_file_is_the_network(toy_root: Path, tmp_path: Path) -> None:
    translation = small("toy_cyclegan", toy_root)
    run(translation, tmp_path / "run")
    content = read_weights(tmp_path / "run" / "translation_6.pth", expected="", instead="")
    assert is_generator_file(content)
    assert isinstance(content, dict)
    file = generator_from(content, tmp_path)
    assert (file.preset, file.step, file.supervision) == ("small", STEPS, "none")
    own = weights(tmp_path / "run")["networks"]["generators"]
    there = {n.removeprefix("0."): v for n, v in own.items() if n.startswith("0.")}
    assert equal(dict(file.build().state_dict()), there)
    with pytest.raises(InputError, match="is damaged: it has no weights"):
        generator_from({n: v for n, v in content.items() if n != "weights"}, tmp_path)


def test_a_run_is_resumed_as_it_was_begun(toy_root: Path, tmp_path: Path) -> None:
    translation = small("toy_cyclegan", toy_root)
    with pytest.raises(InputError, match="nothing to resume"):
        run(translation, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    run(translation, tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already"):
        run(translation, tmp_path / "run")
    translation.train.lr = 1e-3
    with pytest.raises(InputError, match=r"other values of train\.lr"):
        run(translation, tmp_path / "run", resume=True)


def test_steps_beyond_the_last_epoch_are_refused(toy_root: Path, tmp_path: Path) -> None:
    """The run would end before them."""
    translation = small("toy_cyclegan", toy_root)
    train = translation.train
    train.epochs, train.decay_epochs, train.epoch_images = 1, 1, 2
    with pytest.raises(InputError, match=r"train.steps is 6, .* 1 \+ 1, end after 4 steps"):
        run(translation, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cycle_of_no_weight_is_refused(toy_root: Path) -> None:
    """The identity term, a factor of it, would be without effect."""
    translation = small("toy_cyclegan", toy_root)
    assert isinstance(translation.method, CycleGanConfig)
    translation.method.cycle = 0.0
    with pytest.raises(InputError, match=r"method\.cycle is 0\.0: nothing would tie"):
        validate(translation)


def test_what_is_not_finite_is_not_saved(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Game.play

    def broken(game: Game, pair: Pair) -> Turn:
        if game.step == 3:
            pair = pair._replace(source=pair.source * math.nan)
        return play(game, pair)

    monkeypatch.setattr(Game, "play", broken)
    with pytest.raises(FloatingPointError, match="not finite at step 4: loss/generators"):
        run(small("toy_cyclegan", toy_root), tmp_path / "run")
    assert weights(tmp_path / "run")["step"] == 2


def test_all_problems_of_a_preset_at_once(toy_root: Path) -> None:
    translation = small("toy_cyclegan", toy_root)
    translation.data.target = None
    translation.data.target_ground_truth = True
    translation.generator.width = 8
    translation.train.epochs = 0
    assert isinstance(translation.method, CycleGanConfig)
    translation.method.semantic = SemanticConfig()
    with pytest.raises(InputError) as caught:
        validate(translation)
    said = " ".join(caught.value.problems)
    for name in ("data.target is none", "data.target_ground_truth", "generator.width",
                 "train.epochs", "method.semantic.snapshot"):  # fmt: skip
        assert name in said


def test_the_watch_warns_once_of_what_lasts() -> None:
    good = {"figure/told_apart": 0.7, "figure/change": 0.1, "figure/contrast": 0.2}
    watch = Watch(steps=1000)
    said = [watch.warnings(step, good) for step in range(0, 1000, 10)]
    assert not any(said)
    for name, value, word in (("told_apart", 0.995, "tells 100 %"), ("change", 0.001, "identity"),
                              ("contrast", 0.001, "one color")):  # fmt: skip
        watch = Watch(steps=1000)
        found = [t for step in range(0, 1000, 10)
                 for t in watch.warnings(step, good | {f"figure/{name}": value})]  # fmt: skip
        assert len(found) == 1
        assert word in found[0]


def test_the_command(toy_root: Path, shell: Shell) -> None:
    sets = [part for text in (f"data.root={toy_root}", "data.crop=32,64", "data.source.size=64,128",
                              "data.target.size=64,128", "generator.blocks=1")
            for part in ("--set", text)]  # fmt: skip
    ended, said = shell.ended("uda", "train-translation", "--preset", "toy_cut", "--smoke", *sets)
    assert ended == 0
    assert "supervision      none (of the target)" in said
    assert "written: snapshots/toy_cut_smoke/translation_10.pth" in said
    assert (shell.cwd / "snapshots/toy_cut_smoke/translation_10.pth").exists()
    listed = shell.ended("uda", "train-translation", "--list")[1]
    assert all(name in listed for name in TRANSLATIONS)
