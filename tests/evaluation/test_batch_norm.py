"""Batch norm re-estimated: plain averages over unlabeled images, and nothing else changed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from factories import ColorSegmenter, noise, write_png
from tiny_runs import tiny_model
from uda.evaluation.batch_norm import adapt_batch_norm, reestimate_batch_norm
from uda.evaluation.protocols import Protocol
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.utilities.errors import InputError


class OneNorm(Segmenter):
    """Batch normalization of the image itself, so that its statistics are those of the pixels."""

    def __init__(self) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(nn.BatchNorm2d(3), provenance="none", normalization=nothing)

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (self.backbone(normalized),)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        return SegmentationOutput(features[0], None, features[0])


def by_hand(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean over the batches of each batch's mean and of its unbiased variance, per channel."""
    flat = [batch.permute(1, 0, 2, 3).reshape(3, -1) for batch in batches]
    means = torch.stack([pixels.mean(1) for pixels in flat])
    variances = torch.stack([pixels.var(1) for pixels in flat])
    return means.mean(0), variances.mean(0)


def test_reestimated_statistics_are_the_plain_average_over_batches() -> None:
    batches = [torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    segmenter = OneNorm()
    norm = segmenter.backbone
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(5.0)  # what was there before must not matter
    reestimate_batch_norm(segmenter, batches)
    mean, variance = by_hand(batches)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == 0.1
    assert not norm.training
    reestimate_batch_norm(segmenter, batches[:2])  # nor what was estimated before
    torch.testing.assert_close(norm.running_mean, by_hand(batches[:2])[0])


def test_old_statistics_count_as_images_of_the_prior() -> None:
    """Source (0, 1) as 16 images, target (2, 4) as one: mean 2 / 17 and variance 20 / 17."""
    segmenter = OneNorm()
    image = torch.tensor([0.0, 2.0, 2.0, 4.0]).expand(1, 3, 1, 4)
    spread = (3 * 4.0 / 8) ** 0.5  # unbiased variance of the image: 8 / 3
    reestimate_batch_norm(segmenter, [2 + (image - 2) * spread], prior=16)
    norm = segmenter.backbone
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 2 / 17))
    torch.testing.assert_close(norm.running_var, torch.full((3,), 20 / 17))
    with pytest.raises(InputError, match="prior is -1; allowed: 0 or more images"):
        reestimate_batch_norm(segmenter, [image], prior=-1)


def test_two_batches_of_a_folder_count_by_their_images(tmp_path: Path) -> None:
    images = write_images(tmp_path, 16)
    segmenter, new = OneNorm(), OneNorm()
    said = adapt_batch_norm(segmenter, tmp_path, Protocol(), prior=48)
    assert said.endswith("the old statistics counting as 48 more")
    reestimate_batch_norm(new, [torch.stack(images[:8]), torch.stack(images[8:])])
    ours, theirs = (n.state_dict()["backbone.running_mean"] for n in (segmenter, new))
    torch.testing.assert_close(ours, theirs / 4)


def test_adapting_batch_norm_changes_running_statistics_only(toy_root: Path) -> None:
    segmenter = tiny_model().build(19).train()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    folder = toy_root / "Cityscapes" / "leftImg8bit" / "train"
    said = adapt_batch_norm(segmenter, folder, Protocol(input_size=(32, 64)))
    assert said == f"re-estimated on 6 of 6 unlabeled images of {folder}"
    assert not any(module.training for module in segmenter.modules())
    changed = {n for n, t in segmenter.state_dict().items() if not torch.equal(t, before[n])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in before if name.endswith(statistics)}


def write_images(folder: Path, count: int, size: tuple[int, int] = (6, 10)) -> list[Tensor]:
    """The pictures of `folder` in order, (3, H, W) float in [0, 1]."""
    pictures = [noise(100 + index, size) // (1 + index % 3) for index in range(count)]
    for index, picture in enumerate(pictures):
        write_png(folder / f"city_{index % 2}" / f"{index:03d}.png", picture)
    order = sorted(range(count), key=lambda index: (index % 2, index))
    return [torch.from_numpy(pictures[index]).permute(2, 0, 1) / 255 for index in order]


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (5, [*range(5)]),
        (9, [0, 1, 2, 3, 5, 6, 7, 8]),
        (16, [*range(16)]),
        (17, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]),
    ],
)
def test_batch_norm_is_adapted_to_whole_batches_spread_over_the_folder(
    tmp_path: Path, count: int, chosen: list[int]
) -> None:
    images = write_images(tmp_path, count)
    segmenter = OneNorm()
    said = adapt_batch_norm(segmenter, tmp_path, Protocol())
    assert f"on {len(chosen)} of {count} unlabeled images" in said
    taken = [torch.stack([images[i] for i in chosen[at : at + 8]])
             for at in range(0, len(chosen), 8)]  # fmt: skip
    mean, variance = by_hand(taken)
    norm = segmenter.backbone
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def test_at_most_160_images_are_used(tmp_path: Path) -> None:
    write_images(tmp_path, 170, (2, 2))
    assert "on 160 of 170 unlabeled images" in adapt_batch_norm(OneNorm(), tmp_path, Protocol())


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            InputError, match=r"below it; give a folder of images, or the name of a data set"
        ):
            adapt_batch_norm(OneNorm(), folder, Protocol())


def test_images_that_share_no_size_need_one(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(0, (6, 10)))
    write_png(tmp_path / "b.png", noise(1, (8, 10)))
    with pytest.raises(InputError, match=r"images of different sizes .* give --input-size WxH"):
        adapt_batch_norm(OneNorm(), tmp_path, Protocol())
    adapt_batch_norm(OneNorm(), tmp_path, Protocol(input_size=(4, 4)))


def test_label_files_are_not_taken_for_images(toy_root: Path) -> None:
    with pytest.raises(InputError, match=r"gtFine_labelIds\.png is gray with few values"):
        adapt_batch_norm(
            OneNorm(),
            toy_root / "Cityscapes",
            Protocol(input_size=(4, 4)),
        )


def test_a_network_without_batch_norm_has_nothing_to_adapt(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    with pytest.raises(InputError, match="this network has no batch norm"):
        adapt_batch_norm(ColorSegmenter(), tmp_path, Protocol())


def test_a_data_set_by_its_name_gives_its_training_images(toy_root: Path, tmp_path: Path) -> None:
    """As its folder does, and without its labels."""
    root = tmp_path / "city"
    (root / "Cityscapes").mkdir(parents=True)
    (root / "Cityscapes/leftImg8bit").symlink_to(toy_root / "Cityscapes/leftImg8bit")
    named, folder = OneNorm(), OneNorm()
    said = adapt_batch_norm(named, Path("cityscapes"), Protocol(), data_root=str(root))
    assert said == "re-estimated on 6 of 6 unlabeled images of cityscapes train"
    adapt_batch_norm(folder, root / "Cityscapes/leftImg8bit/train", Protocol())
    assert torch.equal(*(one.state_dict()["backbone.running_mean"] for one in (named, folder)))
