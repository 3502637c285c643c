"""A generator strip by strip: the picture that the whole image gives."""

from itertools import product
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from uda.translation.generators import GeneratorConfig, ResnetGenerator
from uda.translation.strips import translated_in_strips
from uda.utilities.errors import InputError


def generator(*, blocks: int, antialias: bool, dropout: bool = False) -> ResnetGenerator:
    """With weights that give pictures of all values."""
    torch.manual_seed(0)
    config = GeneratorConfig(blocks=blocks, width=16, antialias=antialias, dropout=dropout)
    network = config.build().eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    return network


@pytest.mark.parametrize(("blocks", "antialias"), [*product((6, 9), (False, True))])
def test_strips_are_the_whole_image(blocks: int, antialias: bool) -> None:
    network = generator(blocks=blocks, antialias=antialias).double()
    for (height, width), rows in product(((64, 40), (67, 21), (34, 30)), (16, 17, 20, 32, 1000)):
        images = torch.rand(1, 3, height, width, dtype=torch.float64)
        with torch.no_grad():
            whole = network(images)
        found = translated_in_strips(network, images, rows)
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-10)
    assert whole.std() > 0.1  # there is something to compare


@pytest.mark.parametrize("antialias", [False, True])
def test_rounding_is_all_that_differs(antialias: bool) -> None:
    network = generator(blocks=9, antialias=antialias, dropout=True)
    images = torch.rand(2, 3, 90, 70)
    with torch.no_grad():
        whole = network(images)
    kept = images.clone()
    found = translated_in_strips(network, images, 24)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
    assert torch.equal(images, kept)


def test_a_map_that_is_far_from_zero_keeps_its_variance() -> None:
    """Sums of squares would lose it."""
    network = generator(blocks=1, antialias=False)
    network.get_parameter("model.1.bias").data += 1000.0
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole = network.double()(images.double())
    found = translated_in_strips(network.float(), images, 16)
    torch.testing.assert_close(found.double(), whole, rtol=0, atol=1e-3)


class _Largest(TorchDispatchMode):
    """Notes the numbers in the largest result of an operation."""

    found = 0

    def __torch_dispatch__(self, *call: Any) -> object:  # noqa: ANN401  # as torch calls it
        operation, _, *given = call
        result = operation(*given[0], **(given[1] if len(given) > 1 else {}))
        if isinstance(result, torch.Tensor):
            self.found = max(self.found, result.numel())
        return result


@pytest.mark.parametrize("antialias", [False, True])
def test_no_map_is_larger_than_those_of_the_blocks(antialias: bool) -> None:
    network = generator(blocks=1, antialias=antialias)
    images = torch.rand(1, 3, 512, 32)
    of_a_block = (4 * 16) * (512 // 4) * (32 // 4)
    with _Largest() as whole, torch.no_grad():
        network(images)
    with _Largest() as strips:
        translated_in_strips(network, images, 16)
    assert whole.found >= 4 * of_a_block
    assert strips.found == of_a_block


def test_a_strip_has_rows() -> None:
    with pytest.raises(InputError, match="rows 15: allowed are 16 or more"):
        translated_in_strips(generator(blocks=1, antialias=False), torch.rand(1, 3, 32, 32), 15)
