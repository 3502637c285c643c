"""Criteria that compare networks on target images without labels.

Each of them can be fooled: a network that confidently predicts one class everywhere has the best
possible entropy and density, and no mutual information. So they decide nothing: a run reports its
last step.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.samples import Sample, evenly_spaced
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.passes import coarse_logits
from uda.evaluation.views import Views, read_views
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter
from uda.utilities.distributed import own_share, sum_over_ranks

_DENSITY_PIXELS = 1024  # of an image, on a regular grid: their similarities take 4 MiB
_TEMPERATURE = 0.05  # the paper's


class Criterion(NamedTuple):
    """A figure that ranks networks."""

    title: str
    highest: bool  # whether the highest value is the best; otherwise the lowest is
    about: str = ""  # what it is, for those who have not met it


CRITERIA = {
    "mean_entropy": Criterion("mean entropy", highest=False),
    "information_maximization": Criterion("information maximization", highest=True),
    "soft_neighborhood_density": Criterion("soft neighborhood density", highest=True),
}


@torch.no_grad()
def label_free_criteria(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    count: int,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int = 0,
    progress: Callable[[Iterable[Views]], Iterable[Views]] = iter,
) -> dict[str, float]:
    """The values of CRITERIA, in nats, on `count` of the samples, evenly spaced; {} for none.

    No label is read. `progress` may wrap the iteration over images. The network is applied once to
    each whole image at the protocol's input size, and its logits are used at its own stride:
    resizing them adds no information. It is left in evaluation mode. With several processes each
    takes a share, and all return the same.

    Sources: mean entropy of the pixels' predictions, as in Vu et al., "ADVENT", CVPR 2019, arXiv
    1811.12833. Information maximization: entropy of the mean prediction minus the mean entropy,
    Shi and Sha, ICML 2012, arXiv 1206.6438. Soft neighborhood density: see there.
    """
    chosen = [sample._replace(labels=None) for sample in evenly_spaced(samples, count)]
    if not chosen:
        return {}
    once = replace(config, scales=(1.0,), flip=False)
    found = torch.zeros(len(chosen), 2 + label_space.num_classes, dtype=torch.float64)
    own = own_share(range(len(chosen)))
    segmenter.eval()
    device = next(segmenter.parameters()).device
    views = read_views([chosen[index] for index in own], once, label_space, workers=workers)
    for index, image in zip(own, progress(views), strict=True):
        pixels = image.images[0].to(device).float().div_(255)[None]
        found[index] = criteria_of_image(coarse_logits(segmenter, pixels, once)).cpu()
    # Each row comes from one process, so this sum is exact; the mean over rows has a fixed order.
    found = sum_over_ranks(found)
    mean = found.mean(dim=0)
    marginal = mean[2:]
    diversity = float(-torch.special.xlogy(marginal, marginal).sum())
    values = (float(mean[0]), diversity - float(mean[0]), float(mean[1]))
    return dict(zip(CRITERIA, values, strict=True))


def soft_neighborhood_density(probabilities: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """Scalar in nats: how many similar neighbors a prediction has; log(P - 1) if all are equal.

    The entropy of each prediction's softmax over its cosine similarities to the others, averaged.

    probabilities: (P, C) float
    Source: Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via
    Soft Neighborhood Density", ICCV 2021, arXiv 2108.10860; a similarity of -1 to itself keeps a
    prediction from being its own neighbor, as in the authors' code.
    """
    directions = F.normalize(probabilities, dim=1)
    similarities = directions @ directions.T
    similarities.fill_diagonal_(-1.0).div_(temperature)
    expected = (similarities.softmax(dim=1) * similarities).sum(dim=1)
    return (similarities.logsumexp(dim=1) - expected).mean()


def criteria_of_image(logits: Tensor) -> Tensor:
    """(2 + C,) float64 of logits (1, C, h, w): mean entropy, density, mean probabilities."""
    log_probabilities = F.log_softmax(logits[0].double().flatten(1), dim=0)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).sum(dim=0).mean()
    height, width = logits.shape[2:]
    step = math.ceil(math.sqrt(height * width / _DENSITY_PIXELS))
    grid = probabilities.view(-1, height, width)[:, step // 2 :: step, step // 2 :: step]
    # float32 is enough: a density is a mean over a thousand rows, and is read to a few digits.
    density = soft_neighborhood_density(grid.flatten(1).T.float())
    return torch.cat([torch.stack([entropy, density.double()]), probabilities.mean(dim=1)])
