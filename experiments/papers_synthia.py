"""Papers from SYNTHIA, and from three synthetic sets: the presets from GTA5 with another source.

SYNTHIA has no pixel of terrain, truck and train: mIoU is over the 16 other classes, and the means
that papers print are beside it, each with its definition. Networks have 19 outputs, ProDA's too,
whose own has 16: its number compares with miou16_restricted.
"""

from dataclasses import replace

from uda.experiment import Experiment
from uda.experiments.papers_classic import adaptsegnet_gta5, advent_gta5, fda_gta5
from uda.experiments.papers_daformer import dacs_gta5, daformer, hrda, labeled, mic
from uda.experiments.papers_proda import (
    proda_gta5_denoise,
    proda_gta5_distill,
    proda_gta5_distill_again,
    proda_gta5_warmup,
)
from uda.experiments.papers_vfm import labeled as labeled_short_side
from uda.experiments.papers_vfm import vfm_uda_plusplus
from uda.objectives.distillation import DistillationConfig

_SETS = ("miou16_subset", "miou13_subset", "miou16_restricted")
_STORED = (760, 1280)  # pixels (height, width)
_LONG_SIDE = (1306, 2200)  # as ProDA resizes GTA5


def adaptsegnet_synthia() -> Experiment:
    """AdaptSegNet on two levels; older papers print 13 classes."""
    return _whole(adaptsegnet_gta5())


def advent_synthia() -> Experiment:
    """AdvEnt without the prior of class ratios, which the released code lacks."""
    return _whole(advent_gta5())


def fda_synthia() -> Experiment:
    """FDA with the band 0.01, before self-training."""
    return _from_synthia(fda_gta5(), _STORED)


def dacs_synthia() -> Experiment:
    """DACS on images as they are stored."""
    return _from_synthia(dacs_gta5(), _STORED)


def proda_synthia_warmup() -> Experiment:
    """ProDA, stage 0. The size of SYNTHIA's images is not said: the longer side is GTA5's."""
    return _from_synthia(proda_gta5_warmup(), _LONG_SIDE)


def proda_synthia_denoise() -> Experiment:
    """ProDA, stage 1: prototypes correct the labels of the warm-up."""
    return _from_synthia(proda_gta5_denoise(), _LONG_SIDE)


def proda_synthia_distill() -> Experiment:
    """ProDA, stage 2: a self-supervised student learns what stage 1 gives."""
    return _from_synthia(proda_gta5_distill(), _LONG_SIDE)


def proda_synthia_distill_again() -> Experiment:
    """ProDA, stage 3: the student of stage 2 learns its own labels."""
    return _from_synthia(proda_gta5_distill_again(), _LONG_SIDE)


def daformer_synthia() -> Experiment:
    """DAFormer on SYNTHIA's images as they are stored; all else as from GTA5."""
    return _scored(daformer(labeled("synthia", box=_STORED)))


def hrda_synthia() -> Experiment:
    """HRDA on images enlarged to 2560x1520."""
    return hrda(daformer_synthia())


def mic_hrda_synthia() -> Experiment:
    """MIC on HRDA: masked images of Cityscapes, in context and detail."""
    return mic(hrda_synthia(), block=64)


def vfm_uda_plusplus_synthia_b() -> Experiment:
    """VFM-UDA++ on ViT-B. SYNTHIA's size is not said: a short side of about 1440, as of GTA5."""
    return _scored(vfm_uda_plusplus(labeled_short_side(("synthia",), 1440), size="b", lr=5e-5))


def vfm_uda_plusplus_all_synthetic() -> Experiment:
    """VFM-UDA++ on ViT-L from GTA5, SYNTHIA and UrbanSyn, each a third of the samples.

    Not said is how its authors weigh the three, at which size they read them, and which five real
    data sets their target images are of: here Cityscapes alone, more with
    --set data.target.datasets=cityscapes,acdc,bdd100k,mapillary.
    """
    sources = labeled_short_side(("gta5", "synthia", "urbansyn"), 1440)
    return vfm_uda_plusplus(replace(sources, weights=(1.0, 1.0, 1.0)), size="l", lr=5e-5)


def _scored(experiment: Experiment) -> Experiment:
    """With the means that papers print for SYNTHIA; hrda() keeps them."""
    experiment.evaluation.sets = _SETS
    return experiment


def _whole(experiment: Experiment) -> Experiment:
    """A preset of whole images from GTA5."""
    experiment = _from_synthia(experiment, _STORED)
    assert experiment.data.source is not None
    experiment.data.source.crop = _STORED
    return experiment


def _from_synthia(experiment: Experiment, size: tuple[int, int]) -> Experiment:
    """A preset from GTA5, and what it reads of those before it, from SYNTHIA's images of `size`."""
    data, train = experiment.data, experiment.train
    assert data.source is not None
    data.source.datasets, data.source.size = ("synthia",), size
    data.pseudo_labels = _twin(data.pseudo_labels)
    train.initial_snapshot = _twin(train.initial_snapshot)
    for objective in experiment.objectives.values():
        if isinstance(objective, DistillationConfig):
            objective.network = _twin(objective.network)
    return _scored(experiment)


def _twin(path: str | None) -> str | None:
    """The file or folder of the run from SYNTHIA."""
    return path and path.replace("_gta5", "_synthia").replace("GTA5_", "SYNTHIA_")
