"""The rungs of the toy city's ladder: which preset each trains, and from what it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("snapshots/ladder")  # of the runs
SOURCE_ONLY = "source only"  # the title of what adaptation has to beat
THRESHOLD = ("--threshold", "0.5")
# Presets that are no rungs: they take three times as long, and their parts have rows of their own.
LEFT_OUT = ("toy_aagc", "toy_aagc_student", "toy_rectified")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One method of the ladder; it names others by their `key`."""

    preset: str = ""  # what it trains; nothing for the mean of others
    title: str
    name: str = ""  # its key, where another rung has the same preset or there is none
    starts_from: str | None = None  # whose last snapshot has its first weights
    labels_of: str | None = None  # whose pseudo-labels it learns
    labeling: tuple[str, ...] = THRESHOLD  # options of pseudo_label.py that make them
    network_of: str | None = None  # whose last snapshot is objectives.distillation.network
    # Whose work its CycleGTA5 is: a method of `uda translate` that needs no training, or a preset
    # of `uda train-translation`, trained with the rung's seed; nothing: the drawn one.
    translated_by: str = ""
    segmenter_of: str | None = None  # whose last snapshot that one's semantic term asks
    mean_of: tuple[str, ...] = ()  # whose networks predict together; nothing is trained
    builds_on: str | None = None  # what its mIoU is compared with
    explanation: str = ""  # why it is below that one, if it is: what a run has shown
    mistake: bool = False  # repeats a mistake of the experiment log

    @property
    def key(self) -> str:
        """Its name among the rungs, and that of its run's folder before the seed."""
        return self.name or self.preset

    @property
    def needs(self) -> tuple[str, ...]:
        """The rungs that have to be trained before this one."""
        named = (self.starts_from, self.labels_of, self.network_of, self.segmenter_of,
                 *self.mean_of)  # fmt: skip
        return tuple(dict.fromkeys(key for key in named if key is not None))


RUNGS = (
    Rung(preset="toy_source_only", title=SOURCE_ONLY),
    Rung(preset="toy_agc_source_only", title="GTA5 and CycleGTA5 mixed",
         builds_on="toy_source_only"),
    Rung(preset="toy_aagc_source_only", title="CycleGTA5 only", builds_on="toy_source_only"),
    # The source translated by us
    Rung(preset="toy_aagc_source_only", name="toy_translated_color", translated_by="color",
         title="colors of the target (uda translate)", builds_on="toy_source_only"),
    Rung(preset="toy_aagc_source_only", name="toy_translated_cut", translated_by="toy_cut",
         title="CUT (uda translate)", builds_on="toy_source_only"),
    Rung(preset="toy_aagc_source_only", name="toy_translated_cut_semantic",
         translated_by="toy_cut_semantic", segmenter_of="toy_source_only",
         title="CUT, semantic term (uda translate)",
         builds_on="toy_translated_cut"),
    Rung(preset="toy_aagc_class_mix", name="toy_translated_color_class_mix", translated_by="color",
         title="colors of the target, class mix", builds_on="toy_class_mix"),
    Rung(preset="toy_target_shown", title="target shown, nothing learned from it",
         builds_on="toy_source_only"),
    Rung(preset="toy_entropy", title="entropy minimization", builds_on="toy_target_shown"),
    Rung(preset="toy_minent", title="MinEnt", builds_on="toy_entropy",
         explanation="its seeds differ by more than the two means do."),
    Rung(preset="toy_adversarial", title="adversarial, single level",
         builds_on="toy_target_shown"),
    Rung(preset="toy_adversarial_multi", title="adversarial, multi level (AdaptSegNet)",
         builds_on="toy_adversarial"),
    Rung(preset="toy_advent", title="AdvEnt", builds_on="toy_adversarial_multi"),
    Rung(preset="toy_memory", title="memory regularization", builds_on="toy_target_shown"),
    # FDA
    Rung(preset="toy_fda", title="FDA, band 0.01", builds_on="toy_source_only"),
    Rung(preset="toy_fda_005", title="FDA, band 0.05", builds_on="toy_source_only"),
    Rung(preset="toy_fda_009", title="FDA, band 0.09", builds_on="toy_source_only"),
    Rung(name="toy_fda_mean", title="FDA, mean of three bands", builds_on="toy_fda",
         mean_of=("toy_fda", "toy_fda_005", "toy_fda_009")),
    Rung(preset="toy_fda_selftrain", title="FDA, next round, band 0.01", builds_on="toy_fda",
         labels_of="toy_fda_mean", labeling=("--rule", "quantile")),
    # A student of fixed pseudo-labels
    Rung(preset="toy_pseudo_label", title="pseudo-labels of source only",
         starts_from="toy_source_only", labels_of="toy_source_only", builds_on="toy_source_only"),
    Rung(preset="toy_pseudo_label", name="toy_pseudo_label_cbst",
         title="pseudo-labels of source only, CBST's rule", builds_on="toy_pseudo_label",
         starts_from="toy_source_only", labels_of="toy_source_only",
         labeling=("--rule", "cbst", "--portion", "0.5")),
    Rung(preset="toy_pseudo_label", name="toy_pseudo_label_iast",
         title="pseudo-labels of source only, IAST's rule", builds_on="toy_pseudo_label",
         starts_from="toy_source_only", labels_of="toy_source_only",
         labeling=("--rule", "iast")),
    Rung(preset="toy_pseudo_label", name="toy_pseudo_label_quantile",
         title="pseudo-labels of source only, FDA's rule", builds_on="toy_pseudo_label",
         starts_from="toy_source_only", labels_of="toy_source_only",
         labeling=("--rule", "quantile")),
    # ProDA
    Rung(preset="toy_proda_warmup", title="ProDA, warm-up", builds_on="toy_target_shown"),
    Rung(preset="toy_proda_denoise", title="ProDA, denoised labels",
         starts_from="toy_proda_warmup", builds_on="toy_proda_warmup"),
    Rung(preset="toy_proda_distill", title="ProDA, distilled",
         labels_of="toy_proda_denoise", network_of="toy_proda_denoise",
         labeling=("--threshold", "0.95", "--flip"), builds_on="toy_proda_denoise",
         explanation="its network begins from random weights, where the paper's has SimCLR's; "
         "with batch norm re-estimated it is below, too. That this decides has not been shown: its "
         "network has a norm of its input that the stage before lacks, so that it cannot begin "
         "from that one's weights."),
    Rung(preset="toy_proda_distill_again", title="ProDA, distilled twice",
         starts_from="toy_proda_distill", labels_of="toy_proda_distill",
         network_of="toy_proda_distill", labeling=("--threshold", "0.95", "--flip"),
         builds_on="toy_proda_distill"),
    # A mean teacher
    Rung(preset="toy_cut_mix", title="CutMix", builds_on="toy_target_shown"),
    Rung(preset="toy_fix_match", title="FixMatch", builds_on="toy_target_shown"),
    Rung(preset="toy_class_mix", title="class mix", builds_on="toy_target_shown"),
    Rung(preset="toy_class_mix_student", title="student of class mix",
         starts_from="toy_class_mix", labels_of="toy_class_mix", builds_on="toy_class_mix"),
    Rung(preset="toy_class_balanced", title="class mix, CBST's thresholds",
         builds_on="toy_class_mix"),
    Rung(preset="toy_instance_adaptive", title="class mix, IAST's thresholds",
         builds_on="toy_class_mix",
         explanation="rare classes fall behind (truck, sign, fence), as they do not with "
         "CBST's thresholds. With gamma 1 instead of 8, seed 0 reaches 48.0 instead of 47.3."),
    Rung(preset="toy_dacs", title="DACS", builds_on="toy_class_mix",
         explanation="its jitter decides. With that of class mix, seed 0 reaches 49.8 instead of "
         "45.0; with its threshold, share of each image and averages instead, 45.6."),
    Rung(preset="toy_rare_classes", title="class mix, rare classes", builds_on="toy_class_mix"),
    Rung(preset="toy_daformer", title="DAFormer's training", starts_from="toy_source_only",
         builds_on="toy_rare_classes"),
    Rung(preset="toy_mic", title="MIC", builds_on="toy_rare_classes",
         explanation="too much is hidden of small images: with 30 % instead of 70 %, seed 0 "
         "reaches 49.3 instead of 46.0. Small things are lost (person, pole), and batch norm "
         "averages over what is left: re-estimated, it is less far below."),
    Rung(preset="toy_hrda", title="HRDA", builds_on="toy_rare_classes",
         explanation="small things are lost (sign, bicycle, pole): at half size an image has 64 "
         "rows, and the detail that sees more is an eighth of it."),
    Rung(preset="toy_mic_hrda", title="MIC on HRDA", builds_on="toy_hrda",
         explanation="as MIC is below class mix with rare classes."),
    Rung(preset="toy_aagc_class_mix", title="CycleGTA5, class mix", builds_on="toy_class_mix"),
    Rung(preset="toy_aagc_rare_classes", title="CycleGTA5, class mix, rare classes",
         builds_on="toy_aagc_class_mix"),
    Rung(preset="toy_mit_source_only", title="MiT-B0, source only"),
    Rung(preset="toy_mit_mic", title="MiT-B0, MIC", builds_on="toy_mit_source_only"),
    # Labels of the target
    Rung(preset="toy_oracle", title="oracle"),
    Rung(preset="toy_oracle_long", title="oracle, 1000 steps", builds_on="toy_oracle"),
    # Mistakes
    Rung(preset="toy_cut_mix_ground_truth", title="CutMix with target labels (C2)",
         builds_on="toy_cut_mix", mistake=True),
    Rung(preset="toy_cross_view", title="views that are not aligned (C3)",
         builds_on="toy_fix_match", mistake=True,
         explanation="pixels at the same place of two crops show different things, and the "
         "average is the only prediction on which they can agree."),
    Rung(preset="toy_pseudo_label_mapped_twice", title="pseudo-labels mapped twice (C4)",
         starts_from="toy_class_mix", labels_of="toy_class_mix",
         builds_on="toy_class_mix_student", mistake=True,
         explanation="the labels were read as label ids, so that half of the classes became "
         "others and the rest was ignored."),
)  # fmt: skip


def rung_named(key: str) -> Rung:
    return next(rung for rung in RUNGS if rung.key == key)


def with_needed(rungs: Sequence[Rung]) -> list[Rung]:
    """`rungs` and all that they need, each after what it needs."""
    ordered: dict[str, Rung] = {}

    def add(rung: Rung) -> None:
        for key in rung.needs:
            add(rung_named(key))
        ordered[rung.key] = rung

    for rung in rungs:
        add(rung)
    return list(ordered.values())


def descendants(rung: Rung) -> list[Rung]:
    """The rungs that need this one, by way of others too."""
    return [other for other in RUNGS if rung in with_needed([other])[:-1]]
