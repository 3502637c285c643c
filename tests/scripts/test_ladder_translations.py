"""The ladder's rungs on translated images: what is run for them, and when it is run again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ladder_commands import Commands, clear_digests, figures, stand_in

import ladder
from ladder_rungs import rung_named
from uda.experiments.translations import TRANSLATIONS, toy_cut_semantic
from uda.translation.config import Translation

pytest.importorskip("matplotlib")  # of the extra plots, which draws the chart


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with stand_in(tmp_path) as found:
        yield found


def test_a_rung_on_translated_images_has_a_data_root_of_its_own(commands: Commands) -> None:
    """Two rungs share one; another seed, or another translation, has another."""
    colors = ("toy_translated_color", "toy_translated_color_class_mix")
    ladder.main(["--seeds", "0", "--jobs", "2", "--only", *colors])
    (call,) = (call for call in commands.calls if call[:2] == ("uda", "translate"))
    (root,) = Path("snapshots/ladder/translated").iterdir()
    assert root.name.startswith("color_0_")
    assert call == (
        "uda", "translate", "--method", "color", "--target", "cityscapes", "--seed", "0",
        "--dataset", "gta5", "--data-root", str(root), "--output", f"{root}/CycleGTA5",
    )  # fmt: skip
    assert sorted(p.name for p in root.iterdir() if p.is_symlink()) == [
        "Cityscapes", "GTA5", "toy_city.json"
    ]  # fmt: skip
    assert (root / "GTA5").readlink() == Path.cwd() / "data/toy_city/GTA5"
    trained = [call for call in commands.calls if call[0] == "train_uda.py"]
    assert len(trained) == 2
    assert all(call[-2:] == ("--set", f"data.root={root}") for call in trained)
    assert all(figures()[rung_named(key).title]["translated_by"] == "color" for key in colors)
    commands.calls.clear()
    ladder.main(["--seeds", "0", "--only", *colors, "--all"])
    assert commands.calls == []


def test_a_translation_is_trained_first(
    commands: Commands, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["--seeds", "1", "--jobs", "1", "--only", "toy_translated_cut_semantic"]
    ladder.main(arguments)
    (root,) = Path("snapshots/ladder/translated").iterdir()
    assert commands.calls[3:5] == [
        ("uda", "train-translation", "--preset", "toy_cut_semantic", "--run",
         f"ladder/translated/{root.name}/translation", "--set", "train.seed=1", "--set",
         "method.semantic.snapshot=snapshots/ladder/toy_source_only_1/GTA5_500.pth"),
        ("uda", "translate", "--restore-from", f"{root}/translation/translation_1600.pth",
         "--dataset", "gta5", "--data-root", str(root), "--output", f"{root}/CycleGTA5"),
    ]  # fmt: skip
    commands.calls.clear()

    def changed() -> Translation:
        translation = toy_cut_semantic()
        translation.train.lr = 1.0
        return translation

    clear_digests()
    monkeypatch.setitem(TRANSLATIONS, "toy_cut_semantic", changed)
    ladder.main(arguments)
    assert "is run again: its translation changed since" in capsys.readouterr().out
    scripts = commands.scripts()
    assert scripts == ["scripts/make_toy_city.py", "uda", "uda", "train_uda.py",
                       "eval_single.py"]  # fmt: skip
