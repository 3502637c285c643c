"""Foreign files that lack tensors, as far as the user allows it."""

import pytest
import torch

from factories import file_of, format_titled
from foreign_files import State, opened, prefixed, segmentron_file, without
from uda.models.segmentron import SegmenTronConfig
from uda.utilities.errors import InputError


@pytest.fixture
def state() -> State:
    """SegmenTron's file, to be changed."""
    return segmentron_file()


CLASSIFIER = {"head.block.2.weight", "head.block.2.bias"}


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


def test_a_head_that_is_cut_is_said_to_be_that() -> None:
    """Not that the rest of the file is a backbone."""
    state = file_of(format_titled("AdaptSegNet two-level DeepLab-v2"))
    del state["layer6.conv2d_list.3.bias"]
    with pytest.raises(InputError, match=r"535 of 536 tensors match, 1 \(layer6.*--partial NAME"):
        opened(state, project="adaptsegnet")
