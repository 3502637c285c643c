"""Papers from Cityscapes to ACDC and Dark Zurich: DAFormer, HRDA, MIC and VFM-UDA++, as released.

Their numbers are of the test sets, whose labels are on servers: uda eval --split test --export acdc
or dark_zurich writes what these take. Here val is scored, whose numbers differ: by twenty points on
Dark Zurich. Reference images, the same places by day or in clear weather, are not used.
"""

from dataclasses import replace

from uda.data.config import DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment
from uda.experiments.papers_daformer import daformer, hrda, labeled, mic
from uda.experiments.papers_vfm import labeled as labeled_short_side
from uda.experiments.papers_vfm import vfm_uda_plusplus
from uda.objectives.masked_image import MaskedImageConfig

_HALF = (540, 960)  # of images of 1920x1080


def daformer_acdc() -> Experiment:
    """DAFormer from Cityscapes to all of ACDC, scored at 960x540."""
    return _daformer_to("acdc")


def hrda_acdc() -> Experiment:
    """HRDA from Cityscapes to ACDC, scored in six windows of 1024x1024."""
    return _hrda(daformer_acdc())


def mic_hrda_acdc() -> Experiment:
    """MIC on HRDA: of two masked images, one is of the source."""
    return _mic(hrda_acdc())


def daformer_dark_zurich() -> Experiment:
    """DAFormer from Cityscapes to the nights of Dark Zurich, scored at 960x540."""
    return _daformer_to("dark_zurich")


def hrda_dark_zurich() -> Experiment:
    """HRDA from Cityscapes to the nights of Dark Zurich."""
    return _hrda(daformer_dark_zurich())


def mic_hrda_dark_zurich() -> Experiment:
    """MIC on HRDA: of two masked images, one is of the source."""
    return _mic(hrda_dark_zurich())


def vfm_uda_plusplus_dark_zurich() -> Experiment:
    """VFM-UDA++ on ViT-L from Cityscapes to Dark Zurich's nights, twilights and days.

    Not said is at which size Cityscapes is read as a source: here as it is as a target.
    """
    experiment = vfm_uda_plusplus(labeled_short_side(("cityscapes",), 1024), size="l", lr=5e-5)
    target = _target(experiment)
    target.datasets = ("dark_zurich",)
    target.splits = ("train", "train_twilight", "train_day")
    experiment.evaluation.dataset = "dark_zurich"
    return experiment


def _daformer_to(dataset: str) -> Experiment:
    """DAFormer from Cityscapes at half its size. The ignored rows stay those of Cityscapes."""
    experiment = daformer(labeled("cityscapes", box=(512, 1024)))
    target = _target(experiment)
    target.datasets, target.size = (dataset,), _HALF
    experiment.evaluation = replace(
        EvaluationConfig.following("daformer", dataset=dataset),
        input_size=_HALF,
        every=experiment.evaluation.every,
    )
    return experiment


def _hrda(experiment: Experiment) -> Experiment:
    """`hrda`, where pseudo-labels count up to the borders, as its authors have it here."""
    experiment = hrda(experiment)
    _target(experiment).ignored_borders = None
    return experiment


def _mic(experiment: Experiment) -> Experiment:
    """`mic`, which here masks a source image and a target image, and jitters neither."""
    experiment = mic(experiment, block=64)
    masked = experiment.objectives["masked_image"]
    assert isinstance(masked, MaskedImageConfig)
    masked.images, masked.jitter = "source_and_target", None
    return experiment


def _target(experiment: Experiment) -> DomainConfig:
    assert experiment.data.target is not None
    return experiment.data.target
