"""Foreign files: told by names and shapes, complete or refused, and right to the last logit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foreign_files import State, opened, prefixed, segmentron_file
from recipes import recipe_image, recipe_network
from uda.checkpoints.foreign import read_foreign
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.models.encoders.resnet import resnet_backbone
from uda.models.segmentron import SegmenTronConfig
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.fixture
def state() -> State:
    """SegmenTron's file, to be changed."""
    return segmentron_file()


@pytest.mark.slow
def test_segmentron_logits_are_the_originals(tmp_path: Path) -> None:
    # Every third pixel of 65x97: one on a logit of stride 4, two between them.
    expected = np.load(GOLDEN / "segmentron_65x97.npz")["main_65x97"]
    segmenter, _ = recipe_network("SegmenTron DeepLabV3+ ResNet-101", tmp_path, prefix="module.")
    with torch.no_grad():
        logits = segmenter(recipe_image(65, 97)).logits[0, :, ::3, ::3].numpy()
    assert logits.shape == expected.shape == (19, 22, 33)
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-5


def test_a_file_holds_712_entries(state: State) -> None:
    assert len(state) == 712
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == 118


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        prefixed,
        lambda state: {"state_dict": prefixed(state, "Scale."), "epoch": 400},
        lambda state: {"model_state": prefixed(state), "best_score": 0.78},
        lambda state: {"model": {"state_dict": prefixed(state, "module.Scale.module.")}},
    ],
)
def test_a_file_is_recognized_however_it_is_wrapped(
    state: State, wrap: Callable[[State], object]
) -> None:
    found = read_foreign(wrap(state), origin="teacher.pth")
    assert found is not None
    assert found.format is SEGMENTRON
    assert found.model == SegmenTronConfig(backbone_weights="none")
    assert found.num_classes == 19
    assert found.tensors == "592 of 592 matched, 0 missing, 0 unexpected"
    assert found.randomly_initialized == []
    assert found.state["backbone.conv1.weight"] is state["encoder.conv1.weight"]


def test_the_state_is_the_networks(state: State) -> None:
    found = read_foreign(state, origin="teacher.pth")
    assert found is not None
    with torch.device("meta"):
        own = found.model.build(19).state_dict()
    assert {n: t.shape for n, t in found.state.items()} == {n: t.shape for n, t in own.items()}
    assert {n: t.dtype for n, t in found.state.items()} == {n: t.dtype for n, t in own.items()}


def test_counters_and_the_unused_classifier_may_be_missing(state: State) -> None:
    state["head.aspp.bn.num_batches_tracked"] = torch.tensor(7)
    full = read_foreign(state, origin="teacher.pth")
    for name in list(state):
        if name.endswith("num_batches_tracked") or name.startswith(SEGMENTRON.unused):
            del state[name]
    found = read_foreign(state, origin="teacher.pth")
    assert found is not None
    assert full is not None
    assert set(found.state) == set(full.state)
    assert full.state["aspp.project.bn.num_batches_tracked"].item() == 7
    assert found.state["aspp.project.bn.num_batches_tracked"].item() == 0


def test_what_the_network_does_not_know_is_refused(state: State) -> None:
    """A fork may compute something else; what is no tensor of it does not."""
    more = {"extra.block.0.weight": torch.zeros(1), "head.aspp.aspp4.bn.bias": torch.zeros(1)}
    said = r"looks like SegmenTron .* 2 tensors .* \(extra.block.0.weight, head.aspp.aspp4.bn.bi"
    with pytest.raises(InputError, match=said):
        read_foreign(state | more, origin="fork.pth")
    for options in (["extra."], ["extra.", "head.aspp.aspp4.", "encoder."]):
        with pytest.raises(InputError, match=r"--ignore"):
            opened(state | more, ignore=options)
    found = opened(prefixed(state | more) | {"epoch": 3}, ignore=["module.extra", "head.aspp."])
    assert found.tensors == (
        "592 of 592 matched, 0 missing, 3 (extra.block.0.weight, ...) unexpected; "
        "left out: extra.block.0.weight, head.aspp.aspp4.bn.bias"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(state: State, value: float) -> None:
    state["head.block.2.bias"] = torch.tensor([*[0.0] * 18, value])
    with pytest.raises(
        InputError, match=r"1 \(head.block.2.bias, ...\) of its tensors hold values"
    ):
        read_foreign(state, origin="broken.pth")


def test_what_only_training_needs_may_be_there(state: State) -> None:
    found = opened(state | {"auxlayer.block.0.weight": torch.zeros(1)})
    assert found.tensors == "592 of 592 matched, 0 missing, 0 unexpected"


def test_classes_are_counted_by_the_classifier(state: State) -> None:
    state["head.block.2.weight"] = torch.zeros(7, 256, 1, 1)
    state["head.block.2.bias"] = torch.zeros(7)
    found = read_foreign(state, origin="teacher.pth")
    assert found is not None
    assert found.num_classes == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"head.c1_block.conv.weight": None},
            r"591 of 592 tensors match, 1 \(head.c1_block.conv.weight, ...\) missing, 0 unexp",
        ),
        (
            {"head.block.2.weight": None},  # leaves no word of the number of classes
            r"591 of 592 tensors match, 1 \(head.block.2.weight, ...\) missing, 0 unexpected, 0 ",
        ),
        (
            {"encoder.conv1.weight": None, "extra.block.0.weight": torch.zeros(1)},
            r"591 of 592 .*, 1 \(encoder.conv1.weight, ...\) missing, 1 \(extra.block.0.weight",
        ),
        (
            {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7, device="meta")},
            r"591 of 592 .* 1 \(en",
        ),
        ({"encoder.conv1.weight": torch.zeros(64, 3, 7, 7).to_sparse()}, r"591 of 592 .* 1 \(enco"),
        (
            {"head.aspp.conv.weight": torch.zeros(256, 1024, 1, 1)},
            r"591 of 592 tensors match, 0 missing, 0 unexpected, 1 \(head.aspp.conv.weight, ...\)",
        ),
        (
            {"encoder.bn1.num_batches_tracked": torch.zeros(64, dtype=torch.long)},
            r"592 of 592 tensors match, 0 missing, 0 unexpected, 1 \(encoder.bn1.num_batches_tra",
        ),
        (
            {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)},
            r"591 of 592 tensors match, 0 missing, 0 unexpected, 1 \(encoder.conv1.weight, ...\)",
        ),
        ({"encoder.conv1.weight": "text"}, r"591 of 592 tensors match, 0 missing, 0 unexpected, 1"),
        ({"head.block.2.weight": torch.zeros(())}, r"591 of 592 .* 1 \(head.block.2.weight, ...\)"),
        ({"head.block.2.weight": torch.zeros(0, 256, 1, 1)}, r"591 of 592 tensors match, 0 miss"),
    ],
)
def test_what_does_not_fit_is_refused_and_counted(
    state: State, change: dict[str, object], message: str
) -> None:
    changed = {name: value for name, value in (state | change).items() if value is not None}
    with pytest.raises(InputError, match=message) as caught:
        read_foreign({"state_dict": prefixed(changed)}, origin="teacher.pth")  # type: ignore[arg-type]
    assert str(caught.value).startswith("teacher.pth looks like SegmenTron DeepLabV3+ ResNet-101")
    assert "--partial NAME ..." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"weight": torch.zeros(2), "bias": torch.zeros(2)},
        {"state_dict": {}},
        {"model": 3},
        {1: torch.zeros(2)},
        {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)},
        [torch.zeros(2)],
        torch.zeros(2),
        None,
    ],
    ids=str,
)
def test_other_content_is_of_no_known_format(content: object) -> None:
    assert read_foreign(content, origin="odd.pth") is None


@pytest.mark.slow
def test_other_networks_are_of_no_known_format() -> None:
    trunk = resnet_backbone("resnet18", width=4, weights="none").state_dict()
    assert read_foreign(trunk, origin="trunk.pth") is None
    encoder = {f"encoder.{name}": tensor for name, tensor in trunk.items()}
    assert read_foreign(encoder, origin="encoder.pth") is None
    ours = SegmenTronConfig(backbone="resnet18", backbone_weights="none", backbone_width=4)
    assert read_foreign(ours.build(19).state_dict(), origin="ours.pth") is None


def test_a_prefix_on_some_names_hides_no_tensor(state: State) -> None:
    twice = prefixed(state) | {"encoder.conv1.weight": torch.ones(64, 3, 7, 7)}
    assert read_foreign(twice, origin="twice.pth") is None
