"""Files of DeepLabs of other projects: the originals' logits, and which of two lookalikes they are
of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import uda
from factories import file_of
from recipes import recipe_image, recipe_network
from uda.checkpoints.foreign import ForeignCheckpoint, ForeignOptions, read_foreign
from uda.checkpoints.formats import adaptsegnet
from uda.checkpoints.formats.base import ForeignFormat
from uda.checkpoints.formats.daformer_deeplabv2 import DEEPLABV2
from uda.checkpoints.formats.mmsegmentation import DEEPLABV3PLUS
from uda.checkpoints.formats.proda import PRODA
from uda.checkpoints.formats.seg_uncertainty import SEG_UNCERTAINTY
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.models.decoders.deeplabv2 import DeepLabV2DecoderConfig
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.proda import ProDAConfig
from uda.models.segmentron import SegmenTronConfig
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "file", "project", "entries"),
    [
        ("ADVENT two-level DeepLab-v2", "advent_deeplab_multi", "advent", 640),
        pytest.param(
            "FDA single-level DeepLab-v2", "fda_deeplab", "fda", 632, marks=pytest.mark.slow
        ),
        pytest.param("ProDA DeepLab-v2", "proda_deeplabv2", None, 658, marks=pytest.mark.slow),
        pytest.param(
            "DAFormer DeepLab-v2 ResNet-101",
            "daformer_deeplabv2_r101",
            None,
            640,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mmsegmentation DeepLabV3+ ResNet-101",
            "mmseg_deeplabv3plus_r101_d8",
            None,
            730,
            marks=pytest.mark.slow,
        ),
        ("mmsegmentation DeepLabV3+ ResNet-50", "mmseg_deeplabv3plus_r50_d8", None, 424),
    ],
)
def test_a_file_of_the_original_gives_the_originals_logits(
    title: str, file: str, project: str | None, entries: int, tmp_path: Path
) -> None:
    model = None
    if "ResNet-50" in title:
        title = title.replace("50", "101")
        model = DEEPLABV3PLUS.network(
            {
                "backbone.layer4.0.conv1.weight": 0,
                **dict.fromkeys(
                    ["backbone.layer1.0.conv3.weight", "auxiliary_head.conv_seg.weight"]
                ),
            }
        )
    segmenter, count = recipe_network(
        title, tmp_path, prefix="module.", project=project, model=model
    )
    assert count == entries
    golden = np.load(GOLDEN / f"{file}.npz")
    for name in golden.files:
        kind, _, size = name.rpartition("_")
        height, width = map(int, size.split("x"))
        with torch.no_grad():
            coarse = segmenter.coarse(recipe_image(height, width))
        logits = coarse.auxiliary_logits if kind == "auxiliary_coarse" else coarse.logits
        assert logits is not None
        if kind == "main":  # every eighth pixel
            logits = torch.nn.functional.interpolate(
                logits, (height, width), mode="bilinear", align_corners=segmenter.align_corners
            )[..., ::8, ::8]
        elif file.startswith("mmseg") and kind == "coarse":
            logits = logits[..., ::2, ::2]
        expected = golden[name]
        assert logits[0].shape == expected.shape
        difference = np.abs(logits[0].numpy() - expected).max()
        assert difference / np.abs(expected).max() < 1e-5, name


# --- two branches or four


def branches(seed: int, *trained: int, of: ForeignFormat) -> State:
    """A file whose heads' branches have N(0, 0.01), and those that were trained a part in common:
    a tenth of their deviation."""
    generator = torch.Generator().manual_seed(seed)
    state = file_of(of)
    for head in ("layer5.", "layer6."):
        common: Tensor | None = None
        for branch in range(4):
            name = f"{head}conv2d_list.{branch}.weight"
            if name in state:
                shape = state[name].shape
                if common is None:
                    common = 0.005 * torch.randn(shape[:2], generator=generator)[..., None, None]
                drawn = 0.01 * torch.randn(shape, generator=generator)
                state[name] = drawn + common if branch in trained else drawn
    return state


def opened(content: object, **options: object) -> ForeignCheckpoint:
    found = read_foreign(content, origin="x.pth", options=ForeignOptions(**options))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("two", "four"),
    [
        (adaptsegnet.ADAPTSEGNET, adaptsegnet.ADVENT),
        (adaptsegnet.ADAPTSEGNET_MAIN, adaptsegnet.ADVENT_MAIN),
    ],
    ids=["two levels", "layer6 only"],
)
@pytest.mark.slow
def test_branches_that_were_trained_tell_advent_from_adaptsegnet(
    two: ForeignFormat, four: ForeignFormat
) -> None:
    assert opened(branches(0, 0, 1, of=two)).format is two
    assert opened(branches(1, 0, 1, 2, 3, of=four)).format is four
    for untold in (branches(2, of=two), branches(3, 0, 1, 2, of=two)):
        with pytest.raises(InputError, match=r"tensors do not tell .* --project adaptsegnet \("):
            opened(untold)
        assert opened(untold, project=four.project).format is four
        assert opened(untold, project="adaptsegnet").format is two
        assert opened(untold, network_is_given=True).format is two  # its weights alone are used


def test_drawn_branches_are_within_few_standard_errors() -> None:
    found = []
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        one, two = torch.randn(2, 19, 64, 3, 3, generator=generator)
        value = adaptsegnet.kinship(one, two)
        assert value is not None
        found.append(value)
    assert max(found) < 4
    assert adaptsegnet.kinship(one, one) == pytest.approx((19 * 64) ** 0.5)
    for odd in (torch.zeros(19, 64, 3, 3), torch.ones(3), torch.ones(2, 3, 1, 1).int(), "text"):
        assert adaptsegnet.kinship(one, odd) is None


def test_a_head_that_is_drawn_anew_tells_nothing() -> None:
    state = branches(0, 0, 1, of=adaptsegnet.ADAPTSEGNET_SINGLE)
    del state["layer5.conv2d_list.0.bias"]
    with pytest.raises(InputError, match="tensors do not tell"):
        opened(state, partial=["layer5."])


def test_unknown_projects_are_refused(tmp_path: Path) -> None:
    torch.save(branches(0, of=adaptsegnet.FDA), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"--project advnt: .* known: adaptsegnet, advent, .*fda"):
        uda.load(tmp_path / "x.pth", project="advnt")
    found = uda.load(tmp_path / "x.pth", project="fda")
    assert found.state_dict()["main.conv2d_list.3.weight"].any()
    with pytest.raises(InputError, match="is not a snapshot of this library"):
        uda.load(tmp_path / "x.pth", project="segmentron")


# --- what chooses a network


def test_heads_normalized_by_batch() -> None:
    """MRNet with norm_style=bn: audit B.3."""
    config = DeepLabV2Config(
        backbone_weights="none", batch_norm="frozen_affine", head="se_batch_norm"
    )
    found = opened(file_of(SEG_UNCERTAINTY, config))
    assert found.model == config
    assert "main.bottleneck.2.running_mean" in found.state
    grouped = opened(file_of(SEG_UNCERTAINTY))
    assert grouped.model == replace(config, head="se_group_norm")
    assert "norm_style=in look the same" in grouped.quirks
    single = {n: t for n, t in file_of(SEG_UNCERTAINTY).items() if not n.startswith("layer5.")}
    assert opened(single).model == replace(config, head="se_group_norm", levels=1)


def test_proda_before_distillation() -> None:
    config = ProDAConfig(backbone_weights="none", input_norm=False)
    content = {"ResNet101": {"model_state": file_of(PRODA, config), "objective_vectors": 3}}
    assert opened(content).model == config


@pytest.mark.slow
def test_a_resnet_50_and_four_branches() -> None:
    config = SegmenTronConfig(backbone="resnet50", backbone_weights="none")
    found = opened(file_of(SEGMENTRON, config))
    assert (found.model, found.title) == (config, "SegmenTron DeepLabV3+ ResNet-50")
    four = replace(DEEPLABV2.network({}), decoder=DeepLabV2DecoderConfig())  # type: ignore[call-arg]
    assert opened(file_of(DEEPLABV2, four)).model == four
