"""What the ladder runs and what it writes, with commands that leave made-up results."""

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ladder_commands import Commands, clear_digests, figures, stand_in

import ladder
import ladder_digests
import ladder_figures
from ladder_rungs import RUNGS, Rung, rung_named
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.utilities.errors import InputError

pytest.importorskip("matplotlib")  # of the extra plots, which draws the chart


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with stand_in(tmp_path) as found:
        yield found


ONLY = ("--jobs", "1", "--only", "toy_source_only", "toy_pseudo_label")


class TestLadder:
    def test_it_trains_scores_and_labels_in_this_order_and_writes_three_files(
        self, commands: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Path] = []
        monkeypatch.setattr(ladder_figures, "draw", lambda _, path: drawn.append(path))
        ladder.main(["--seeds", "0", "1", *ONLY])
        first = ["train_uda.py", "eval_single.py"]
        then = ["pseudo_label.py", *first]
        assert commands.scripts() == ["scripts/make_toy_city.py", *(2 * [*first, *then])]
        parent = "snapshots/ladder/toy_source_only_1"
        assert commands.calls[9] == (
            "train_uda.py", "--preset", "toy_pseudo_label", "--run", "ladder/toy_pseudo_label_1",
            "--set", "train.seed=1", "--restore-from", f"{parent}/GTA5_500.pth",
            "--set", f"data.pseudo_labels={parent}/pseudo_labels",
        )  # fmt: skip

        found = figures()
        assert list(found) == ["pseudo-labels of source only", "source only"]  # the best last
        minutes = found["source only"].pop("minutes")
        assert minutes >= 0
        assert found["source only"] == {
            "rung": "toy_source_only",
            "preset": "toy_source_only",
            "mean_of": [],
            "translated_by": "",
            "labels": "",
            "builds_on": None,
            "explanation": "",
            "mistake": False,
            "digest": ladder_digests.digest_of(rung_named("toy_source_only")),
            "steps": 500,
            "supervision": "none",
            "seeds": [0, 1],
            "miou": [30.0, 31.0],
            "miou_batch_norm_reestimated": [42.0, 42.0],
            "per_class": {"road": [80.0, 80.0], "bicycle": [30.0, 31.0]},
        }
        assert Path("experiments/toy_ladder.md").read_text().startswith("# The toy city's ladder")
        assert drawn == [Path("experiments/toy_ladder.png")]
        assert "best by" not in Path("experiments/toy_ladder.html").read_text()

    def test_what_is_finished_is_not_run_again(self, commands: Commands) -> None:
        ladder.main(["--seeds", "0", *ONLY])
        before = Path("experiments/toy_ladder.json").read_bytes()
        commands.calls.clear()
        ladder.main(["--seeds", "0", *ONLY])
        ladder.main(["--seeds", "0", *ONLY, "--all"])
        assert commands.calls == []
        assert Path("experiments/toy_ladder.json").read_bytes() == before

    def test_figures_are_kept_without_their_runs_and_joined_with_those_of_further_seeds(
        self, commands: Commands
    ) -> None:
        ladder.main(["--seeds", "1", *ONLY])
        shutil.rmtree("snapshots")
        commands.calls.clear()
        ladder.main(["--seeds", "0", "1", "--only", "toy_source_only"])
        assert commands.scripts() == ["scripts/make_toy_city.py", "train_uda.py", "eval_single.py"]
        found = figures()
        assert found["source only"]["seeds"] == [0, 1]
        assert found["source only"]["miou"] == [30.0, 31.0]
        assert found["source only"]["per_class"]["bicycle"] == [30.0, 31.0]
        assert found["pseudo-labels of source only"]["seeds"] == [1]  # as it was

    def test_without_their_figures_all_of_them_are_run(self, commands: Commands) -> None:
        ladder.main(["--seeds", "0", "--only", "toy_source_only"])
        shutil.rmtree("snapshots")
        commands.calls.clear()
        ladder.main(["--seeds", "0", "--only", "toy_source_only", "--all"])
        assert commands.scripts() == ["scripts/make_toy_city.py", "train_uda.py", "eval_single.py"]

    def test_changed_settings_are_run_again_with_what_starts_from_them(
        self, commands: Commands, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        ladder.main(["--seeds", "0", *ONLY])
        commands.calls.clear()

        def changed(name: str) -> Experiment:
            experiment = load_preset(name)
            experiment.train.power = 0.8 if name == "toy_source_only" else 0.9
            return experiment

        clear_digests()
        monkeypatch.setattr(ladder_digests, "load_preset", changed)
        ladder.main(["--seeds", "0", *ONLY])
        first = ["train_uda.py", "eval_single.py"]
        assert commands.scripts() == ["scripts/make_toy_city.py", *first, "pseudo_label.py", *first]
        assert "toy_source_only_0 is run again: train.power changed" in capsys.readouterr().out

    def test_another_explanation_is_written_without_a_run(
        self, commands: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ladder.main(["--seeds", "0", *ONLY])
        commands.calls.clear()
        explained = tuple(replace(rung, explanation="it rained.") for rung in RUNGS)
        for module in (ladder, ladder_figures):
            monkeypatch.setattr(module, "RUNGS", explained)
        ladder.main(["--seeds", "0", *ONLY])
        assert commands.calls == []
        said = "is below source only (30.00): it rained."
        assert said in Path("experiments/toy_ladder.md").read_text()

    def test_a_rung_is_run_with_all_that_it_needs(self, commands: Commands) -> None:
        ladder.main(["--seeds", "0", "--jobs", "1", "--only", "toy_proda_distill_again"])
        trained = [call for call in commands.calls if call[0] == "train_uda.py"]
        stages = ("warmup", "denoise", "distill", "distill_again")
        assert [call[2] for call in trained] == [f"toy_proda_{stage}" for stage in stages]
        parent = "snapshots/ladder/toy_proda_distill_0"
        labels = f"{parent}/pseudo_labels_threshold_0.95_flip"
        assert trained[3][7:] == (
            "--restore-from", f"{parent}/GTA5_500.pth", "--set", f"data.pseudo_labels={labels}",
            "--set", f"objectives.distillation.network={parent}/GTA5_500.pth",
        )  # fmt: skip
        assert commands.calls[-3] == (
            "pseudo_label.py", "--restore-from", f"{parent}/GTA5_500.pth", "--threshold", "0.95",
            "--flip", *ladder.ADAPT, "--output", labels,
        )  # fmt: skip
        assert list(figures()) == ["ProDA, distilled twice"]

    def test_the_mean_of_several_is_only_evaluated_and_gives_labels(
        self, commands: Commands
    ) -> None:
        only = ("toy_fda_mean", "toy_fda_selftrain")
        ladder.main(["--seeds", "0", "--jobs", "1", "--only", *only])
        runs = [f"snapshots/ladder/toy_fda{band}_0/GTA5_500.pth" for band in ("", "_005", "_009")]
        networks = ("--restore-from", runs[0], "--with", *runs[1:])
        folder = "snapshots/ladder/toy_fda_mean_0"
        start = commands.scripts().index("pseudo_label.py")
        assert commands.calls[start - 2 : start + 1] == [
            ("eval_single.py", *networks, "--json", f"{folder}/scores.json"),
            ("eval_single.py", *networks, *ladder.ADAPT, "--json", f"{folder}/adapted.json"),
            ("pseudo_label.py", *networks, "--rule", "quantile", *ladder.ADAPT,
             "--output", f"{folder}/pseudo_labels_rule_quantile"),
        ]  # fmt: skip
        found = figures()["FDA, mean of three bands"]
        assert (found["miou"], found["steps"], found["minutes"]) == ([42.0], 0, 0.0)

    def test_every_core_is_busy_and_no_rung_runs_before_what_it_needs(
        self, commands: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On two cores: the longest chain is begun first, and others fill the second core."""
        lock, going, most, ended = threading.Lock(), set[str](), [0], list[str]()

        def climb(rung: Rung, seed: int) -> float:
            with lock:
                assert set(rung.needs) <= set(ended)
                going.add(rung.key)
                most[0] = max(most[0], len(going))
            time.sleep(0.01)
            with lock:
                going.remove(rung.key)
                ended.append(rung.key)
            return 0.0

        monkeypatch.setattr(ladder, "climb", climb)
        monkeypatch.setattr(ladder, "result", lambda rung, seed: {"miou": 1.0})
        ladder.run_all([(rung, 0) for rung in reversed(RUNGS)], 2, {})
        assert sorted(ended) == sorted(rung.key for rung in RUNGS)
        assert most == [2]
        assert "toy_proda_warmup" in ended[:2]  # three more stages wait for it

    def test_climb_says_how_long_a_finished_rung_took(self, commands: Commands) -> None:
        rung = RUNGS[0]
        ladder.folder_of(rung, 0).mkdir(parents=True)
        ladder.clock_of(rung, 0).write_text("3.25")
        assert ladder.climb(rung, 0) == 3.25
        assert commands.calls == []

    def test_an_interrupted_rung_is_run_from_its_start(self, commands: Commands) -> None:
        rung = rung_named("toy_source_only")
        folder = ladder.folder_of(rung, 0)
        folder.mkdir(parents=True)
        (folder / "resume.pth").touch()
        ladder.climb(rung, 0)
        assert commands.scripts() == ["train_uda.py", "eval_single.py"]
        assert not (folder / "resume.pth").exists()

    def test_a_finished_rung_without_its_snapshot_says_so(self, commands: Commands) -> None:
        clock = ladder.clock_of(rung_named("toy_source_only"), 0)
        clock.parent.mkdir(parents=True)
        clock.write_text("3.25")
        with pytest.raises(InputError, match=r"toy_source_only_0 has no snapshot: remove that"):
            ladder.main(["--seeds", "0", "--only", "toy_pseudo_label"])

    def test_an_unknown_preset_is_refused(
        self, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            ladder.main(["--only", "toy_nothing"])
        assert "toy_nothing" in capsys.readouterr().err
        assert commands.calls == []

    def test_a_failing_command_ends_it_and_leaves_its_words_in_a_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("fails.py").write_text(
            "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], 'thread')\nsys.exit('no disk')\n"
        )
        with pytest.raises(InputError, match=r"fails.py --seed 1 failed; see \S+/words.txt"):
            ladder.command("words", str(tmp_path / "fails.py"), "--seed", "1")
        said = Path("snapshots/ladder/logs/words.txt").read_text()
        assert sorted(said.splitlines()) == ["1 thread", "no disk"]
