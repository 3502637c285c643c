"""Presets of `uda train-translation`: from renders to photographs without labels.

Not a study: `--preset` of train_uda.py does not know them.
"""

from collections.abc import Callable

from uda.data.config import DataConfig, DomainConfig
from uda.experiments.toy_city import TOY_ROOT
from uda.translation.config import TrainingConfig, Translation
from uda.translation.cut import CutConfig
from uda.translation.cyclegan import CycleGanConfig
from uda.translation.generators import GeneratorConfig
from uda.translation.semantic import SemanticConfig

_SEGMENTER = "snapshots/gc_640x360_b2_source_only/GTA5_40000.pth"


def cyclegan_gta5_cityscapes() -> Translation:
    """CycleGAN as CyCADA's authors made "GTA5 as Cityscapes": 1024 pixels wide, crops of 400."""
    return Translation(
        data=_streets(crop=(400, 400)),
        method=CycleGanConfig(identity=0.0),
        train=TrainingConfig(epochs=10, decay_epochs=10),
    )


def cyclegan_gta5_cityscapes_semantic() -> Translation:
    """The same, and a frozen source-only network has to see the labels in the translations."""
    translation = cyclegan_gta5_cityscapes()
    _cyclegan(translation).semantic = SemanticConfig(snapshot=_SEGMENTER)
    return translation


def cut_gta5_cityscapes() -> Translation:
    """CUT as its authors trained it on these data: 1024 pixels wide, crops of 512."""
    return Translation(
        data=_streets(crop=(512, 512)),
        generator=GeneratorConfig(antialias=True),
        method=CutConfig(),
        train=TrainingConfig(epochs=40, decay_epochs=40),
    )


def cut_gta5_cityscapes_semantic() -> Translation:
    """The same, and a frozen source-only network has to see the labels in the translations."""
    translation = cut_gta5_cityscapes()
    _cut(translation).semantic = SemanticConfig(snapshot=_SEGMENTER)
    return translation


def toy_cyclegan() -> Translation:
    """Toy city, CycleGAN with small networks: minutes on a CPU."""
    return Translation(
        data=_toy(),
        generator=GeneratorConfig(blocks=3, width=16, antialias=True),
        method=CycleGanConfig(discriminator_width=16),
        train=_short(),
    )


def toy_cyclegan_semantic() -> Translation:
    """Toy city, CycleGAN, and toy_source_only has to see the labels in the translations."""
    translation = toy_cyclegan()
    _cyclegan(translation).semantic = _toy_semantic()
    return translation


def toy_cut() -> Translation:
    """Toy city, CUT with small networks: minutes on a CPU."""
    return Translation(
        data=_toy(),
        generator=GeneratorConfig(blocks=3, width=16, antialias=True),
        method=CutConfig(discriminator_width=16, patches=128),
        train=_short(),
    )


def toy_cut_semantic() -> Translation:
    """Toy city, CUT, and toy_source_only has to see the labels in the translations."""
    translation = toy_cut()
    _cut(translation).semantic = _toy_semantic()
    return translation


TRANSLATIONS: dict[str, Callable[[], Translation]] = {
    preset.__name__: preset
    for preset in (
        cyclegan_gta5_cityscapes,
        cyclegan_gta5_cityscapes_semantic,
        cut_gta5_cityscapes,
        cut_gta5_cityscapes_semantic,
        toy_cyclegan,
        toy_cyclegan_semantic,
        toy_cut,
        toy_cut_semantic,
    )
}


def _streets(*, crop: tuple[int, int]) -> DataConfig:
    """GTA5 (1914x1052) and Cityscapes (2048x1024), both 1024 pixels wide."""
    source = DomainConfig(datasets=("gta5",), size=(563, 1024), mirror=True)
    target = DomainConfig(datasets=("cityscapes",), size=(512, 1024), mirror=True)
    return DataConfig(source=source, target=target, crop=crop)


def _toy() -> DataConfig:
    """Crops of half an image: as good to look at as whole ones, in half of the time."""
    source, target = (DomainConfig(datasets=(name,), size=(128, 256), mirror=True)
                      for name in ("gta5", "cityscapes"))  # fmt: skip
    return DataConfig(root=TOY_ROOT, source=source, target=target, crop=(128, 128), workers=0)


def _short() -> TrainingConfig:
    return TrainingConfig(
        epochs=4, decay_epochs=4, epoch_images=200, batch_size=1, precision="bfloat16",
        picture_every=400, snapshot_every=1600, resume_every=400,
    )  # fmt: skip


def _toy_semantic() -> SemanticConfig:
    return SemanticConfig(snapshot="snapshots/toy_source_only/GTA5_500.pth")


def _cyclegan(translation: Translation) -> CycleGanConfig:
    assert isinstance(translation.method, CycleGanConfig)
    return translation.method


def _cut(translation: Translation) -> CutConfig:
    assert isinstance(translation.method, CutConfig)
    return translation.method
