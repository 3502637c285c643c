"""From the settings of a preset to the samples on disk, checked before a run begins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uda.data.class_pixels import Progress, without_progress
from uda.data.config import DataConfig
from uda.data.known_files import KnownFiles
from uda.data.overlap import same_files
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.rare_classes import open_rare_classes
from uda.data.registry import (
    check_raw_ids,
    check_sizes,
    datasets_of,
    layout_named,
    list_dataset,
    list_domain,
    root_of,
)
from uda.data.samples import Sample
from uda.data.sampling import TrainingDataset
from uda.data.start_checks import check_some, refuse_all_ignored
from uda.data.translated_folder import TranslationManifest, find_manifest
from uda.labels.spaces import NO_CLASSES, LabelSpace
from uda.utilities.errors import InputError, require, shown

NOT_DECLARED = "not declared"  # a run's supervision


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run trains on, and what it thereby knows of the target's labels."""

    dataset: TrainingDataset
    label_space: LabelSpace
    short_name: str  # of the source, or of the target without one, for snapshot names
    supervision: str  # none | pseudo | ground truth (N images) | not declared; see `_supervision`
    described: tuple[str, ...] = ()  # what the user's TOML files say; see `Layout`
    translations: tuple[TranslationManifest, ...] = ()  # of the data sets that uda translate wrote
    files: KnownFiles = field(default_factory=KnownFiles, repr=False)  # of all these samples


def open_training_data(
    data: DataConfig,
    *,
    seed: int,
    evaluated: str | None,
    progress: Progress = without_progress,
    known_classes: LabelSpace | None = None,
) -> TrainingData:
    """Lists and checks the samples of `data`; `evaluated` is the data set that scores are made on,
    if any. `progress` shows how far the label files are counted, where rare classes need it.
    `known_classes`: those of the network that the run starts from, for data that tell none.

    Without `data.target_ground_truth`, label files of the target are neither opened nor looked for.
    Raises InputError when anything is missing or does not fit together.
    """
    files = KnownFiles()
    source = [] if data.source is None else list_domain(data, data.source, labeled=True)
    target = []
    if data.target is not None:
        target = list_domain(data, data.target, labeled=data.target_ground_truth)
    _check_exclusions(data)
    domain = data.source or data.target
    assert domain is not None, "validate() has seen to it that there is one"
    layouts = [layout_named(name) for name in domain.datasets]
    # Of sources with labels of the same classes, one that has pixels of most of them.
    label_space = max((one.label_space for one in layouts), key=lambda space: len(space.labeled))
    if label_space is NO_CLASSES and known_classes is not None:
        label_space = known_classes
    _check_classes(data, label_space)
    for name, samples in (("source", source), ("target", target)):
        check_sizes(samples, files)
        refuse_all_ignored(samples, name)
        check_raw_ids(samples)
    pseudo_labels = None
    if data.pseudo_labels is not None and data.target is not None:
        pseudo_labels = PseudoLabelFolder(
            Path(data.pseudo_labels),
            label_space=label_space,
            stems=[sample.stem for sample in target],
            subset=data.target.first is not None,
            mapped_twice=data.pseudo_labels_mapped_twice,
        )
    check_some(target, pseudo_labels, files)
    dataset = TrainingDataset(
        data,
        source=source,
        target=target,
        label_space=label_space,
        pseudo_labels=pseudo_labels,
        seed=seed,
        rare_classes=open_rare_classes(data, source, label_space, files, progress),
    )
    targets = {*filter(None, [evaluated])} | set(
        data.target.datasets if data.target is not None else ()
    )
    targets = {layout_named(name).name for name in targets}
    same = same_files(source, target, files)  # another name for them changes nothing
    learned = [*target, *(s for s in source if s.dataset in targets or s.name in same)]
    supervision = _supervision(learned, pseudo_labels)
    if supervision == "none" and not _domains_are_known(data, evaluated):
        supervision = NOT_DECLARED
    described = tuple(layout_named(name).description for name in datasets_of(data))
    root = root_of(data.root, datasets_of(data))
    manifests = [find_manifest(root / layout_named(name).folder) for name in datasets_of(data)]
    translations = tuple(manifest for manifest in manifests if manifest is not None)
    short_name = layouts[0].short_name
    return TrainingData(
        dataset, label_space, short_name, supervision, described, translations, files
    )


def open_labeled_split(
    root: Path,
    dataset: str,
    split: str,
    *,
    label_space: LabelSpace,
    files: KnownFiles | None = None,
) -> list[Sample]:
    """The samples of a split to score on; InputError when they are not of `label_space`.

    files: those of the start that this belongs to, which then finishes them.
    """
    require_known_classes(dataset, label_space)
    require(
        layout_named(dataset).label_space.unscored == label_space.unscored,
        f"{dataset} leaves other classes out of its scores than {label_space.name}, which the "
        "network knows: give the same classes scored = false",
    )
    samples = list_dataset(root, dataset, split, labeled=True)
    known = files or KnownFiles()
    check_sizes(samples, known)
    if files is None:
        known.finish()
    check_raw_ids(samples)
    return samples


def require_known_classes(dataset: str, label_space: LabelSpace) -> None:
    """Raises InputError unless `dataset` is labeled with the classes of a network's label space."""
    theirs = layout_named(dataset).label_space
    require(
        theirs is not NO_CLASSES,
        f"{dataset} is a folder of images, which has no labels to score on: name a data set that "
        "has or, for training, add --set evaluation.every=0",
    )
    require(
        theirs.classes == label_space.classes,
        f"{dataset} is labeled with {theirs.name}, the network knows {label_space.name}: "
        f"{_difference(theirs, label_space)}; choose a data set with the same classes",
    )


def _difference(theirs: LabelSpace, ours: LabelSpace) -> str:
    """What first tells two label spaces apart."""
    if theirs.num_classes != ours.num_classes:
        return f"{theirs.num_classes} classes there, {ours.num_classes} here"
    for place, (their, our) in enumerate(zip(theirs.classes, ours.classes, strict=True)):
        if their != our:
            return f"class {place} is {shown(their)} there, {shown(our)} here"
    return "other classes change places in a mirror image (mirror_swaps)"


def _check_classes(data: DataConfig, label_space: LabelSpace) -> None:
    """One network has one list of classes; which raw ids stand for them may differ."""
    require(
        label_space is not NO_CLASSES,
        "the target is a folder of images, and without a source nothing tells its classes: start "
        "from a network, with --set train.initial_snapshot=FILE; or python "
        "scripts/describe_dataset.py FOLDER --classes-of NAME writes a TOML file that does",
    )
    for name in datasets_of(data):
        theirs = layout_named(name).label_space
        require(
            theirs is NO_CLASSES
            or (theirs.classes, theirs.mirror_swaps)
            == (label_space.classes, label_space.mirror_swaps),
            f"{name} is labeled with the classes of {theirs.name}, other data of this preset with "
            f"those of {label_space.name}: {_difference(theirs, label_space)}; choose data sets "
            "with the same classes in the same order",
        )


def _check_exclusions(data: DataConfig) -> None:
    """Raises InputError for an excluded name that no data set has: it is a typing error."""
    if not data.exclude:
        return
    domains = [domain for domain in (data.source, data.target) if domain is not None]
    root = root_of(data.root, datasets_of(data))
    known = {
        sample.name
        for domain in domains
        for name in domain.datasets
        for split in domain.splits
        for sample in list_dataset(root, name, split, labeled=False)
    }
    unknown = sorted(set(data.exclude) - known)
    if unknown:
        raise InputError(
            f"data.exclude names {unknown[0]!r}, which is not a sample of this preset; names look "
            f"like {min(known)}"
        )


def _domains_are_known(data: DataConfig, evaluated: str | None) -> bool:
    """Whether labels that are learned are known to be no labels of the domain that is scored.

    That is so where a target is declared, of data sets that are sources by their description, and
    of this library's own. But two user-defined data sets may be one recording.
    """
    if data.target is not None or data.source is None:
        return True
    sources = [layout_named(name) for name in data.source.datasets]
    scored = [] if evaluated is None else [layout_named(evaluated)]
    described = any(layout.description for layout in (*sources, *scored))
    return not described or all(layout.domain == "source" for layout in sources)


def declaration_remark(opened: TrainingData) -> list[str]:
    """How to declare what the labels of a run are labels of, where it is not declared."""
    if opened.supervision != NOT_DECLARED:
        return []
    names = ", ".join(dict.fromkeys(sample.dataset for sample in opened.dataset.source))
    return [
        f"supervision is {NOT_DECLARED}: the run has no target, so nothing tells whether {names} "
        'shows the scored domain. If it does not, write domain = "source" into its TOML file'
    ]


def _supervision(of_target: Sequence[Sample], pseudo_labels: PseudoLabelFolder | None) -> str:
    """What is known of labels of the target that a run learns from."""
    labeled = sum(sample.labels is not None for sample in of_target)
    if labeled:
        return f"ground truth ({labeled} images)"
    if pseudo_labels is None:
        return "none"
    teacher = pseudo_labels.manifest.supervision
    return "pseudo" if teacher == "none" else f"pseudo; labels made with: {teacher}"
