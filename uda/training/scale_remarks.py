"""At which scale images are trained on and scored, and what is to be said of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from uda.data.config import DomainConfig
from uda.data.known_files import KnownFiles
from uda.data.registry import layout_named
from uda.data.samples import Sample, evenly_spaced
from uda.data.sampling import TrainingDataset
from uda.data.transforms import fitted_size
from uda.evaluation.protocols import Size, input_size_of
from uda.experiment import Experiment

_LOOKED_AT = 8  # images of a domain
_STRETCHED = 1.1  # one side by so much more than the other
_OTHER_SCALE = 1.5


def size_lines(experiment: Experiment) -> Iterator[str]:
    """The size that each domain's images are resized to, and their crops, in words."""
    data = experiment.data
    for name, domain in (("source", data.source), ("target", data.target)):
        if domain is not None:
            low, high = domain.scale
            scale = "" if low == high == 1 else f" times {low:g} to {high:g}"
            shape = ", shape kept" if domain.keep_ratio else ""
            crop = _spelled(data.crop_of(domain))
            yield f"{name} {_spelled(domain.size)}{scale}{shape}, in crops of {crop}"


def scale_remarks(
    experiment: Experiment,
    trained: TrainingDataset,
    validation: Sequence[Sample],
    files: KnownFiles,
) -> list[str]:
    """What to know of images that lose their shape, and of training and scoring at two scales."""
    data, evaluation = experiment.data, experiment.evaluation
    scored = _sizes(validation, files)
    remarks = list[str]()
    domains = (
        ("data.source", data.source, trained.source),
        ("data.target", data.target, trained.target),
    )
    for path, domain, samples in domains:
        if domain is not None:
            found = _sizes(samples, files)
            remarks += _stretched(path, "size", found, _resize(domain))
    remarks += _stretched(
        "evaluation", "input_size", scored, lambda s: input_size_of(s, evaluation)
    )
    path, domain, samples = domains[1] if data.target is not None else domains[0]
    if domain is None or not scored or not _of_one_camera(domain, evaluation.dataset, path):
        return remarks
    ours = _factor(_sizes(samples, files), _resize(domain)) * math.sqrt(math.prod(domain.scale))
    scales = sum(evaluation.scales) / len(evaluation.scales)
    theirs = _factor(scored, lambda stored: input_size_of(stored, evaluation)) * scales
    if max(ours, theirs) > _OTHER_SCALE * min(ours, theirs):
        sides = ",".join(map(str, domain.size))
        keep = " --set evaluation.keep_ratio=true" if domain.keep_ratio else ""
        remarks.append(
            f"{path} is trained on at {ours:.2f} times the size its images are stored in, but "
            f"{evaluation.dataset} is scored at {theirs:.2f} times: networks score best at the "
            f"scale they have learned; add --set evaluation.input_size={sides}{keep}"
        )
    return remarks


def _of_one_camera(domain: DomainConfig, scored: str, path: str) -> bool:
    """Whether scales compare: of a target, or of data sets that the user has described; objects
    may be of another size in a source of this library."""
    described = [layout_named(name).description for name in (*domain.datasets, scored)]
    return path == "data.target" or scored in domain.datasets or all(described)


def _sizes(samples: Sequence[Sample], files: KnownFiles) -> list[Size]:
    """(height, width) of some of the images, as they are stored."""
    return files.image_sizes(
        [s.image for s in evenly_spaced(samples, _LOOKED_AT)] if samples else []
    )


def _resize(domain: DomainConfig) -> Callable[[Size], Size]:
    def resized(stored: Size) -> Size:
        return fitted_size(stored, domain.size) if domain.keep_ratio else domain.size

    return resized


def _factor(stored: Sequence[Size], resize: Callable[[Size], Size]) -> float:
    """By how much images become larger, as a median over them."""
    return median(math.sqrt(math.prod(resize(size)) / math.prod(size)) for size in stored)


def _stretched(
    path: str, field: str, stored: Sequence[Size], resize: Callable[[Size], Size]
) -> Iterator[str]:
    """A line when some images do not keep their shape."""
    for size in stored:
        new = resize(size)
        by = (new[0] / size[0]) / (new[1] / size[1])
        if max(by, 1 / by) > _STRETCHED:
            yield (
                f"{path}.{field} stretches images, {_spelled(size)} to {_spelled(new)}: to keep "
                f"their shape, add --set {path}.keep_ratio=true"
            )
            return


def _spelled(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
