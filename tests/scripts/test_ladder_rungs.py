"""The ladder's list of rungs, and when their figures are valid no longer."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from ladder_commands import clear_digests

import ladder_digests
import ladder_rungs
from ladder_rungs import LEFT_OUT, RUNGS, Rung, rung_named
from uda.experiment import Experiment, validate
from uda.experiments import PRESETS, load_preset, toy_city
from uda.experiments.translations import TRANSLATIONS, toy_cut
from uda.translation.config import Translation
from uda.utilities.config_tree import to_plain


class TestRungs:
    def test_each_has_a_toy_preset_and_a_title_of_its_own(self) -> None:
        for rung in RUNGS:
            assert (rung.preset in PRESETS) == (not rung.mean_of)
            if rung.preset:
                assert load_preset(rung.preset).data.root == toy_city.TOY_ROOT
        for names in ([r.key for r in RUNGS], [r.title for r in RUNGS]):
            assert len(set(names)) == len(names)

    def test_every_toy_preset_is_on_it_or_left_out_by_name(self) -> None:
        toy = {name for name in PRESETS if name.startswith("toy_")}
        assert toy == {*LEFT_OUT, *(rung.preset for rung in RUNGS if rung.preset)}

    def test_their_presets_start_from_what_they_do(self) -> None:
        for rung in RUNGS:
            if rung.mean_of:
                continue
            preset = validate(load_preset(rung.preset)).experiment
            takes_weights = preset.train.initial_snapshot is not None
            takes_labels = preset.data.pseudo_labels is not None
            frozen = [o for o in preset.objectives.values() if o.frozen_snapshot() is not None]
            assert takes_weights == (rung.starts_from is not None), rung.key
            assert takes_labels == (rung.labels_of is not None), rung.key
            assert bool(frozen) == (rung.network_of is not None), rung.key
            assert rung.network_of is None or frozen == [preset.objectives["distillation"]]
            if rung.starts_from is not None:
                parent = load_preset(rung_named(rung.starts_from).preset)
                assert validate(parent).experiment.model == preset.model, rung.key

    def test_their_translations_ask_the_networks_that_they_name(self) -> None:
        for rung in RUNGS:
            translation = TRANSLATIONS.get(rung.translated_by)
            assert translation or rung.translated_by in ("", "color"), rung.key
            semantic = translation is not None and translation().method.semantic is not None
            assert semantic == (rung.segmenter_of is not None), rung.key
            if rung.translated_by:
                source = load_preset(rung.preset).data.source
                assert source is not None
                assert source.datasets == ("cyclegta5",), rung.key

    def test_what_they_need_and_build_on_is_there(self) -> None:
        keys = {rung.key for rung in RUNGS}
        for rung in RUNGS:
            assert {*rung.needs, rung.builds_on or rung.key} <= keys
            assert rung.builds_on != rung.key
            ordered = [other.key for other in ladder_rungs.with_needed([rung])]
            assert ordered[-1] == rung.key
            assert set(rung.needs) <= set(ordered[:-1])

    def test_several_stages_are_in_their_order(self) -> None:
        ordered = ladder_rungs.with_needed([rung_named("toy_proda_distill_again")])
        stages = ("warmup", "denoise", "distill", "distill_again")
        assert [rung.key for rung in ordered] == [f"toy_proda_{stage}" for stage in stages]
        after = ladder_rungs.descendants(rung_named("toy_proda_denoise"))
        assert [rung.key for rung in after] == ["toy_proda_distill", "toy_proda_distill_again"]

    def test_source_only_is_one_of_them(self) -> None:
        (rung,) = (r for r in RUNGS if r.title == ladder_rungs.SOURCE_ONLY)
        assert rung.preset == "toy_source_only"


class TestDigests:
    def test_they_follow_the_settings_and_all_that_a_rung_starts_from(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {rung.key: digest(rung) for rung in RUNGS}
        assert len(set(before.values())) == len(RUNGS)

        def changed(name: str) -> Experiment:
            experiment = load_preset(name)
            if name == "toy_source_only":
                experiment.train.power = 0.8
            return experiment

        monkeypatch.setattr(ladder_digests, "load_preset", changed)
        after = {rung.key: digest(rung) for rung in RUNGS}
        parent = rung_named("toy_source_only")
        others = {rung.key for rung in (parent, *ladder_rungs.descendants(parent))}
        assert {"toy_daformer", "toy_translated_cut_semantic"} <= others
        assert {key for key in before if before[key] != after[key]} == others

    def test_paths_and_defaults_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Thus no new field makes figures invalid: it has a default."""
        rung = rung_named("toy_pseudo_label")
        before = digest(rung)

        def moved(name: str) -> Experiment:
            experiment = load_preset(name)
            experiment.data.root = "elsewhere"
            if experiment.data.pseudo_labels is not None:
                experiment.data.pseudo_labels = "snapshots/other"
                experiment.train.initial_snapshot = "snapshots/other.pth"
            return experiment

        monkeypatch.setattr(ladder_digests, "load_preset", moved)
        assert digest(rung) == before

    def test_another_translation_is_another_method(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {rung.key: digest(rung) for rung in RUNGS}

        def changed(more_blocks: int) -> Translation:
            translation = toy_cut()
            translation.data.root = "elsewhere"
            translation.generator.blocks += more_blocks
            return translation

        monkeypatch.setitem(TRANSLATIONS, "toy_cut", lambda: changed(0))
        assert {rung.key: digest(rung) for rung in RUNGS} == before
        monkeypatch.setitem(TRANSLATIONS, "toy_cut", lambda: changed(1))
        other = {key for key, old in before.items() if digest(rung_named(key)) != old}
        assert other == {"toy_translated_cut"}

    def test_labels_by_another_rule_are_another_method(self) -> None:
        rung = rung_named("toy_pseudo_label")
        assert digest(replace(rung, labeling=("--threshold", "0.6"))) != digest(rung)
        assert digest(replace(rung, title="x", explanation="y", builds_on=None)) == digest(rung)

    def test_what_a_run_has_otherwise(self) -> None:
        stored = to_plain(validate(load_preset("toy_source_only")).experiment)
        stored["train"]["seed"] = 2
        stored["data"]["root"] = "elsewhere"
        del stored["data"]["pseudo_labels"]  # a file older than the field
        assert ladder_digests.changes("toy_source_only", stored) == []
        stored["train"]["steps"] = 400
        assert ladder_digests.changes("toy_source_only", stored) == ["train.steps"]


def digest(rung: Rung) -> str:
    """Of the presets as they are now."""
    clear_digests()
    return ladder_digests.digest_of(rung)


@pytest.fixture(autouse=True)
def _no_changed_preset_stays() -> Iterator[None]:
    yield
    clear_digests()
