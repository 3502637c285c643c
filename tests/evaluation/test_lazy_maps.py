"""Rows of resized maps, and the highest class of each of their pixels."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from uda.evaluation.lazy_maps import Map, Resized, Rows

SIZES = [((13, 17), (100, 140)), ((7, 9), (15, 90)), ((20, 20), (21, 400)), ((1, 1), (40, 40)),
         ((30, 30), (20, 10))]  # fmt: skip


def maps(size: tuple[int, int], kind: str) -> Tensor:
    """(1, 5, h, w) of a kind: noise; few values, so that many are equal; regions, as of a network
    that is sure; values without a number."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 5, *size, generator=generator)
    match kind:
        case "noise":
            return noise
        case "equal":
            return noise.round()
        case "regions":
            coarse = torch.randn(1, 5, 3, 3, generator=generator)
            return 9 * F.interpolate(coarse, size, mode="nearest")
        case _:
            noise[0, 3, size[0] // 2, size[1] // 2] = torch.nan
            noise[0, 2, 0, 0] = torch.inf
            return noise


def in_strips(rows: Rows, step: int, what: str) -> Tensor:
    height = rows.size[0]
    found = [getattr(rows, what)(k, min(k + step, height)) for k in range(0, height, step)]
    return torch.cat(found, dim=0 if what == "highest" else 2)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("kind", ["noise", "equal", "regions", "not finite"])
@pytest.mark.parametrize("sizes", SIZES)
def test_highest_is_that_of_the_rows(
    sizes: tuple[tuple[int, int], tuple[int, int]], kind: str, align_corners: bool
) -> None:
    values = maps(sizes[0], kind)
    rows = Resized(Map(values), sizes[1], align_corners=align_corners)
    for step in (3, 7, sizes[1][0]):
        expected = in_strips(rows, step, "rows").max(dim=1).indices[0]
        assert torch.equal(in_strips(rows, step, "highest"), expected)
        twice = Resized(rows, (151, 180), align_corners=False)
        expected = in_strips(twice, step, "rows").max(dim=1).indices[0]
        assert torch.equal(in_strips(twice, step, "highest"), expected)


def test_between_two_rows_that_agree_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.zeros(1, 3, 4, 6)
    values[0, 1, :, :3], values[0, 2, :, 3:] = 5, 7

    def refuse(*_: Tensor) -> Tensor:
        raise AssertionError("no row between is needed")

    monkeypatch.setattr("uda.evaluation.lazy_maps._between", refuse)
    found = in_strips(Resized(Map(values), (16, 6), align_corners=False), 8, "highest")
    assert torch.equal(found, torch.tensor([1, 1, 1, 2, 2, 2]).expand(16, 6))
