"""State dicts: what is around them comes off, and what is wanted of them is counted."""

from typing import Any

import pytest
import torch

from uda.utilities.weight_files import compare, listed, unwrapped

INNER = {"conv.weight": 1, "bn.bias": 2}


def prefixed(prefix: str) -> dict[str, int]:
    return {prefix + name: value for name, value in INNER.items()}


@pytest.mark.parametrize(
    "content",
    [
        INNER,
        prefixed("module."),
        prefixed("Scale."),
        prefixed("module.Scale.module."),
        {"state_dict": INNER, "epoch": 3},
        {"model": {"model_state": {"state_dict": prefixed("Scale.module.")}}, "state": {}},
        {"state_dict": {}, "model": INNER},
        {"model": INNER, "state_dict": {"lr": 3}},
    ],
)
def test_what_is_around_a_state_dict_comes_off(content: object) -> None:
    assert unwrapped(content) == INNER


@pytest.mark.parametrize(
    "content",
    [
        prefixed("module.") | {"bn.weight": 3},  # two names could become one
        {"model": 3, "weight": 1},
        {"module": INNER["bn.bias"]},
    ],
)
def test_what_not_all_names_share_stays(content: dict[str, int]) -> None:
    assert unwrapped(content) == content


def test_what_is_no_tensor_needs_no_prefix() -> None:
    tensor = torch.zeros(1)
    assert unwrapped({"module.weight": tensor, "epoch": 3}) == {"weight": tensor, "epoch": 3}


@pytest.mark.parametrize("content", [None, 3, [INNER], {}, {"state_dict": {}}])
def test_what_holds_no_state_dict_is_empty(content: object) -> None:
    assert unwrapped(content) == {}


def test_only_the_prefixes_asked_for_come_off() -> None:
    assert unwrapped(prefixed("module.Scale."), ("module.",)) == prefixed("Scale.")


def test_a_dict_that_holds_itself_comes_to_an_end() -> None:
    endless: dict[str, Any] = {"weight": 1}
    endless["model"] = endless
    assert set(unwrapped(endless)) == {"weight", "model"}


def test_everything_is_counted() -> None:
    shapes = {
        "a.weight": torch.Size((2, 3)),
        "a.bias": torch.Size((2,)),
        "a.num_batches_tracked": torch.Size(()),
        "b.weight": torch.Size((4,)),
        "b.num_batches_tracked": torch.Size(()),
    }
    weight, count = torch.ones(2, 3), torch.tensor(5)
    entries = {"a.weight": weight, "a.bias": torch.ones(3), "a.num_batches_tracked": count, "c": 1}
    found = compare(entries, shapes)
    assert found.wanted == 3  # without counters
    assert list(found.fitting) == ["a.weight"]
    assert found.fitting["a.weight"] is weight
    assert found.counters == {"a.num_batches_tracked": count, "b.num_batches_tracked": 0}
    assert (found.missing, found.misshapen, found.unexpected) == (["b.weight"], ["a.bias"], ["c"])
    assert not found.complete
    assert str(found) == (
        "1 of 3 tensors match, 1 (b.weight, ...) missing, 1 (c, ...) unexpected, 1 (a.bias, ...) "
        "of another shape or type"
    )


def test_strangers_leave_a_file_complete() -> None:
    assert compare({"a": torch.ones(2), "b": 1}, {"a": torch.Size((2,))}).complete


def test_many_names_are_cut_short() -> None:
    assert listed(["a"]) == "a"
    assert listed(list("abcdef")) == "a, b, c, d, e, f"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
