"""Foreign files: told by names and shapes, complete or refused, and right to the last logit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factories import file_of, format_titled, title_of
from recipes import recipe_image, recipe_network
from uda.checkpoints.foreign import (
    ForeignCheckpoint,
    ForeignOptions,
    read_foreign,
)
from uda.checkpoints.formats.base import ForeignFormat, known_formats
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.matching import describe_unknown
from uda.evaluation.protocols import PROTOCOLS
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.resnet import BackboneName, ResNetConfig, resnet_backbone
from uda.models.segmentron import SegmenTronConfig
from uda.models.vainf import VainFConfig
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

State = dict[str, Tensor]
# Formats whose files have one name for each of ours.
TABLES = [foreign for foreign in known_formats() if foreign.convert is dict]


@pytest.fixture(scope="module")
def published() -> State:
    """A file in SegmenTron's layout, as it was published: with ImageNet's classifier."""
    classifier = {
        "encoder.fc.weight": torch.zeros(()).expand(1000, 2048),
        "encoder.fc.bias": torch.zeros(()).expand(1000),
    }
    return file_of(SEGMENTRON) | classifier


@pytest.fixture
def state(published: State) -> State:
    """The same, to be changed."""
    return dict(published)


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


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_names_map_there_and_back(foreign: ForeignFormat) -> None:
    names = file_of(foreign)
    own = {name: foreign.own_name(name) for name in names}
    assert len(set(own.values())) == len(names)
    assert all(ours is not None and foreign.their_name(ours) == name for name, ours in own.items())
    assert foreign.classifier in names


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_quirks_and_protocol_are_the_networks(foreign: ForeignFormat) -> None:
    config = foreign.network({})
    with torch.device("meta"):
        network = config.build(19)
    aligned = "corners aligned" in foreign.quirks
    assert aligned == network.align_corners
    assert aligned != ("corners not aligned" in foreign.quirks)
    assert ("BGR input minus Caffe's mean" in foreign.quirks) == network.bgr
    assert ("RGB input" in foreign.quirks) != network.bgr
    pooling = [m.ceil_mode for m in network.modules() if isinstance(m, nn.MaxPool2d)]
    assert ("ceil-mode pooling" in foreign.quirks) == any(pooling)
    assert ("floor-mode pooling" in foreign.quirks) == (pooling == [False])
    summed = isinstance(config, DeepLabV2Config) and config.head == "sum"
    assert ("ASPP branches summed" in foreign.quirks) == summed
    if isinstance(config, DeepLabV2Config) and summed:
        assert f"{config.aspp_branches} of 4 ASPP" in foreign.quirks
    assert foreign.protocol in PROTOCOLS


def prefixed(state: State, prefix: str = "module.") -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


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


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_normalization_is_the_networks(foreign: ForeignFormat) -> None:
    config = foreign.network({})
    if isinstance(config, ResNetConfig):
        tiny = replace(config, backbone="resnet18", backbone_width=4).build(2)
        assert torch.equal(tiny.mean.flatten(), torch.tensor(foreign.normalization.mean))
        assert torch.equal(tiny.std.flatten(), torch.tensor(foreign.normalization.std))
        assert tiny.bgr == foreign.normalization.bgr
    else:
        with torch.device("meta"):
            encoder = config.build(2).backbone
        assert foreign.normalization == encoder.normalization
    found = opened(file_of(foreign), project=foreign.project)
    assert tuple(found.state["mean"].flatten()) == pytest.approx(foreign.normalization.mean)
    assert tuple(found.state["std"].flatten()) == pytest.approx(foreign.normalization.std)


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
    more = {"auxlayer.block.0.weight": torch.zeros(1), "head.aspp.aspp4.bn.bias": torch.zeros(1)}
    said = r"looks like SegmenTron .* 2 tensors .* \(auxlayer.block.0.weight, head.aspp.aspp4.bn.bi"
    with pytest.raises(InputError, match=said):
        read_foreign(state | more, origin="fork.pth")
    for options in (["auxlayer."], ["auxlayer.", "head.aspp.aspp4.", "encoder."]):
        with pytest.raises(InputError, match=r"--ignore"):
            opened(state | more, ignore=options)
    found = opened(prefixed(state | more) | {"epoch": 3}, ignore=["module.auxlayer", "head.aspp."])
    assert found.tensors == (
        "592 of 592 matched, 0 missing, 3 (auxlayer.block.0.weight, ...) unexpected; "
        "left out: auxlayer.block.0.weight, head.aspp.aspp4.bn.bias"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(state: State, value: float) -> None:
    state["head.block.2.bias"] = torch.tensor([*[0.0] * 18, value])
    with pytest.raises(
        InputError, match=r"1 \(head.block.2.bias, ...\) of its tensors hold values"
    ):
        read_foreign(state, origin="broken.pth")


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
            {"encoder.conv1.weight": None, "auxlayer.block.0.weight": torch.zeros(1)},
            r"591 of 592 .*, 1 \(encoder.conv1.weight, ...\) missing, 1 \(auxlayer.block.0.weight",
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


@pytest.mark.parametrize("foreign", TABLES, ids=title_of)
def test_a_trunk_alone_is_nobodys(foreign: ForeignFormat) -> None:
    trunk = {
        name: tensor
        for name, tensor in file_of(foreign).items()
        if (foreign.own_name(name) or "").startswith("backbone.")
    }
    assert len(trunk) > 170
    assert read_foreign(trunk, origin="trunk.pth") is None


# --- files that may lack something


CLASSIFIER = {"head.block.2.weight", "head.block.2.bias"}


def without(state: State, *beginnings: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(beginnings)}


def opened(
    content: object, *partial: str, ignore: Sequence[str] = (), project: str | None = None
) -> ForeignCheckpoint:
    options = ForeignOptions(partial=partial, ignore=ignore, project=project)
    found = read_foreign(content, origin="part.pth", options=options)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drawn() -> State:
    """A network as every call draws it."""
    torch.manual_seed(0)
    return SegmenTronConfig(backbone_weights="none").build(19).state_dict()


@pytest.mark.parametrize(
    "partial", [("head.block.2.weight", "head.block.2.bias"), ("head.block.2.",), ("module.head",)]
)
def test_what_may_be_missing_is_drawn(state: State, drawn: State, partial: tuple[str, ...]) -> None:
    before = torch.random.get_rng_state()
    found = opened(prefixed(without(state, "head.block.2.")), *partial)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.num_classes == 19
    assert set(found.randomly_initialized) == CLASSIFIER
    assert found.tensors == (
        "590 of 592 matched, 2 (head.block.2.weight, ...) missing, 0 unexpected; "
        "randomly initialized: head.block.2.weight, head.block.2.bias"
    )
    assert found.state.keys() == drawn.keys()
    assert drawn["decoder.2.weight"].any()
    assert torch.equal(found.state["decoder.2.weight"], drawn["decoder.2.weight"])
    assert not found.state["decoder.0.pointwise.weight"].any()  # as in the file


def test_of_many_drawn_tensors_the_first_are_named(state: State) -> None:
    found = opened(without(state, "head.block."), "head.block.")
    assert len(found.randomly_initialized) == 22
    assert found.tensors.endswith(
        f"randomly initialized: {', '.join(found.randomly_initialized[:6])} and 16 more"
    )


def test_a_classifier_of_another_size_counts_as_missing_where_it_may_be(state: State) -> None:
    classifier = {
        "head.block.2.weight": torch.ones(7, 256, 1, 1),
        "head.block.2.bias": torch.ones(7),
    }
    found = opened(state | classifier, "head.block.2.")
    assert found.num_classes == 19
    assert set(found.randomly_initialized) == CLASSIFIER
    assert found.state["decoder.2.weight"].shape == (19, 256, 1, 1)


def test_two_levels_may_lack_the_main_one() -> None:
    """Of whose classifier a format's number of classes is read."""
    foreign = format_titled("AdaptSegNet two-level DeepLab-v2")
    found = opened(without(file_of(foreign), "layer6."), "layer6.", project="adaptsegnet")
    assert found.format is foreign
    assert (found.num_classes, len(found.randomly_initialized)) == (19, 8)


def initial_file() -> State:
    """AdaptSegNet's initial weights: "Scale.", a head for 21 classes, no counters."""
    whole = file_of(format_titled("AdaptSegNet single-level DeepLab-v2"))
    head = {n: torch.zeros(21, *t.shape[1:]) for n, t in whole.items() if n.startswith("layer5.")}
    state = {n: t for n, t in (whole | head).items() if not n.endswith("num_batches_tracked")}
    return prefixed(state, "Scale.")


def test_a_head_for_other_classes_may_be_drawn_anew() -> None:
    assert opened(initial_file(), project="adaptsegnet").num_classes == 21
    found = opened(initial_file(), "layer5.", project="adaptsegnet")
    assert (found.num_classes, len(found.randomly_initialized)) == (19, 8)
    assert found.state["main.conv2d_list.0.weight"].shape == (19, 2048, 3, 3)


@pytest.mark.parametrize(
    ("partial", "message"),
    [
        (
            ("head.block.2.", "head.c1"),
            r"--partial head.c1: no tensor of .* that part.pth lacks begins with it \(2 ",
        ),
        (
            ("head.block.2.weight",),
            r"590 of 592 tensors match, 2 \(head.block.2.weight, ...\) miss",
        ),
        (("head.block.2.", ""), "give names of tensors, or how they begin"),
        (("head.block.2.", "module."), "give names of tensors, or how they begin"),
    ],
)
def test_names_that_allow_nothing_or_too_little_are_refused(
    state: State, partial: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(without(state, "head.block.2."), *partial)
    assert "\n" not in str(caught.value)


def test_a_whole_file_allows_nothing_to_be_missing(state: State) -> None:
    with pytest.raises(InputError, match=r"--partial head: no tensor .* \(0 missing or of another"):
        opened(state, "head")


def test_a_head_that_is_not_named_must_still_fit(state: State) -> None:
    classifier = {
        "head.block.2.weight": torch.ones(7, 256, 1, 1),
        "head.block.2.bias": torch.ones(7),
    }
    with pytest.raises(
        InputError, match=r"590 of 592 .* 2 \(head.block.2.weight, ...\) of another"
    ):
        opened(state | classifier, "head.block.2.weight")


# --- files of no known format


def test_the_nearest_formats_are_named(state: State) -> None:
    half = dict(list(without(state, "head.", "encoder.fc").items())[:300])
    half["encoder.bn1.weight"] = torch.zeros(3)
    assert read_foreign(half, origin="half.pth") is None
    counted = sum(not name.endswith("num_batches_tracked") for name in half) - 1
    said = describe_unknown(half, "half.pth")
    assert said.startswith(
        "nearest of the files of other projects: SegmenTron DeepLabV3+ ResNet-101, "
        f"{counted} of 592 tensors match, {591 - counted} ("
    )
    assert "0 unexpected, 1 (encoder.bn1.weight, ...) of another shape or type" in said
    assert "\n" not in said


def test_of_two_that_fit_as_well_the_nearer_is_named_first() -> None:
    """The file has the names of one, with fewer channels."""
    foreign = format_titled("VainF DeepLabV3+ ResNet-101")
    narrow = file_of(foreign, VainFConfig(backbone_width=32, backbone_weights="none"))
    assert "projects: VainF DeepLabV3+ ResNet-101, " in describe_unknown(narrow, "narrow.pth")


@pytest.mark.parametrize("content", [{}, [1], 3, {"state_dict": {}}])
def test_without_tensors_all_formats_are_named(content: object) -> None:
    said = describe_unknown(content, "odd.pth")
    assert said.startswith("files of other projects that can be read: AdaptSegNet two-level")
    assert all(title_of(foreign) in said for foreign in known_formats())


@pytest.mark.parametrize(
    ("name", "width", "heads"),
    [("resnet18", 24, ("fc.weight",)), ("resnet50", 64, ()), ("resnet101", 8, ("layer5.0.bias",))],
)
def test_a_trunk_is_told_to_serve_as_initial_weights(
    name: BackboneName, width: int, heads: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        shapes = resnet_backbone(name, width=width, weights="none").state_dict()
    trunk = {n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in shapes.items()}
    trunk |= {head: torch.zeros(1) for head in heads}
    said = describe_unknown(prefixed(trunk), "some/trunk.pth")
    assert said == (
        f"it holds the backbone of a {name} of width {width}, which can be used as initial "
        "weights: --set model.backbone_weights=some/trunk.pth"
    )
    assert "trunk" not in describe_unknown(trunk | {"decode.bias": torch.zeros(1)}, "whole.pth")
    del trunk["layer4.1.conv2.weight"]
    assert "trunk" not in describe_unknown(trunk, "part.pth")
