"""Networks and images that a recipe fixes to the bit, as the golden files were made with them."""

import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import uda
from factories import file_of, format_titled
from uda.models.config import ModelConfig
from uda.models.segmenter import Segmenter


def recipe_weight(name: str, like: Tensor) -> Tensor:
    """The entry of an original's state dict that tests/data/golden was made with."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    shape = tuple(like.shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(like)
    if name.endswith("running_var"):
        values = random.uniform(0.8, 1.2, shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:
        values = 1 + 0.1 * random.standard_normal(shape)
    else:
        gain = 0.5 if any(f"layer{stage}." in name for stage in (1, 2, 3, 4)) else 1.0
        values = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:])) * gain
    return torch.from_numpy(values.astype(np.float32))


def recipe_image(height: int, width: int) -> Tensor:
    """(1, 3, H, W) float, RGB in [0, 1]"""
    low = np.random.default_rng(0).uniform(0, 1, (1, 3, height // 8 + 2, width // 8 + 2))
    image = F.interpolate(
        torch.from_numpy(low.astype(np.float32)),
        size=(height, width),
        mode="bicubic",
        align_corners=False,
    )
    return image.clamp(0, 1)


# SHA-256 of the images that golden float64 arrays were made from.
_IMAGES = {
    (64, 96): "7121fc6fbb981535",
    (56, 70): "351c9e03040f686b",
    (48, 64): "d285bcc0c55adf4e",
}


def double_limit(height: int, width: int) -> float:
    """What relative error float64 logits of `recipe_image` may have.

    Some versions of torch, 2.9 among them, resize to an image with other last bits; from there on,
    float64 is no more exact than float32.
    """
    image = recipe_image(height, width).numpy().tobytes()
    same = hashlib.sha256(image).hexdigest().startswith(_IMAGES[height, width])
    return 1e-8 if same else 1e-5


def recipe_network(
    title: str,
    folder: Path,
    *,
    prefix: str = "",
    project: str | None = None,
    model: ModelConfig | None = None,
) -> tuple[Segmenter, int]:
    """The network that `uda.load` opens in a file of an original, by default that of the format's
    usual network, and the number of its entries."""
    foreign = format_titled(title)
    weights = {prefix + n: recipe_weight(n, like) for n, like in file_of(foreign, model).items()}
    path = folder / "recipe.pth"
    torch.save({"state_dict": weights, "epoch": 3}, path)
    try:
        return uda.load(path, project=project), len(weights)
    finally:
        path.unlink()  # of hundreds of megabytes, which pytest would keep
