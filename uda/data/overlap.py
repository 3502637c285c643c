"""Images that are both trained on and scored: one file under two paths, or copies of a file."""

from collections.abc import Sequence
from pathlib import Path

from uda.data.known_files import KnownFiles
from uda.data.samples import Sample
from uda.utilities.errors import InputError, require

_NAMED = 3  # pairs in a remark
_CHOOSE = (
    "choose other splits with --set data.source.splits=..., --set data.target.splits=... or --set "
    "evaluation.split=...; to score training images on purpose, add --sanity-check"
)


def same_files(samples: Sequence[Sample], others: Sequence[Sample], files: KnownFiles) -> set[str]:
    """The names of those `samples` that share their image file with one of `others`."""
    theirs = {stamp.identity for stamp in files.stamps(other.image for other in others)}
    stamps = files.stamps(sample.image for sample in samples)
    both = zip(samples, stamps, strict=True)
    return {sample.name for sample, stamp in both if stamp.identity in theirs}


def refuse_overlap(trained: Sequence[Sample], scored: Sequence[Sample], files: KnownFiles) -> None:
    """Raises InputError when a scored image is among those trained on, with labels or without, or
    its label file or another image of its scene is, under whatever name."""
    scenes = {sample.scene for sample in scored}
    shown = {sample.name for sample in trained if sample.scene in scenes}
    both = sorted(same_files(trained, scored, files) | shown)
    require(
        not both,
        f"{len(both)} images are both trained on and scored, the first is {both[:1]}: {_CHOOSE}",
    )
    theirs = {stamp.identity for stamp in files.stamps(_labels(scored))}
    labels = _labels(trained)
    stamps = files.stamps(labels)
    shared = [p for p, stamp in zip(labels, stamps, strict=True) if stamp.identity in theirs]
    if shared:
        raise InputError(
            f"{len(shared)} label files are both trained on and scored, the first is {shared[0]}: "
            f"{_CHOOSE}"
        )


def copies(
    samples: Sequence[Sample], others: Sequence[Sample], files: KnownFiles
) -> list[tuple[str, str]]:
    """Names of pairs of images whose files differ, but have the same bytes.

    Only files of equal length are opened; of these, both ends are compared before all bytes are.
    """
    same = same_files(samples, others, files)
    ours = {sample.image: sample.name for sample in samples if sample.name not in same}
    theirs = {other.image: other.name for other in others}
    for facts_of in (files.lengths, files.ends, files.digests):
        own, other = facts_of([*ours]), facts_of([*theirs])
        shared = set(own) & set(other)
        ours = {
            path: name for (path, name), f in zip(ours.items(), own, strict=True) if f in shared
        }
        theirs = {
            path: n for (path, n), f in zip(theirs.items(), other, strict=True) if f in shared
        }
    by_digest = dict(zip(files.digests([*theirs]), theirs.values(), strict=True))
    digests = files.digests([*ours])
    return [(name, by_digest[d]) for name, d in zip(ours.values(), digests, strict=True)]


def copy_remarks(
    source: Sequence[Sample],
    target: Sequence[Sample],
    scored: Sequence[Sample],
    files: KnownFiles,
) -> list[str]:
    """What is to be said of copies, a line each: of images that are trained on and scored, and of
    labeled source images that are target images as well."""
    remarks = []
    for pairs, problem in (
        (
            copies([*source, *target], scored, files),
            "images that are trained on are scored as well",
        ),
        (copies(source, target, files), "labeled source images are target images as well"),
    ):
        if pairs:
            some = ", ".join(f"{name} = {other}" for name, other in pairs[:_NAMED])
            more = ", ..." if len(pairs) > _NAMED else ""
            remarks.append(
                f"{len(pairs)} {problem}, as copies with the same bytes: {some}{more}; exclude "
                "them with --set data.exclude=NAME,..."
            )
    return remarks


def _labels(samples: Sequence[Sample]) -> list[Path]:
    return [sample.labels for sample in samples if sample.labels is not None]
