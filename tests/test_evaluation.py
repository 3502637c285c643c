"""Scores against brute force, averages by hand, and batch norm left alone or re-estimated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from factories import Bytes, ColorSegmenter, colors_of, noise, write_png, written_sample
from tiny_runs import tiny_model
from uda.batch_norm import reestimate_batch_norm
from uda.data.labels import CITYSCAPES, IGNORE_INDEX
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.errors import InputError
from uda.evaluation import (
    EvaluationConfig,
    adapt_batch_norm,
    evaluate,
    input_protocol,
    predict,
    predictions,
    protocol,
)
from uda.metrics import Scores
from uda.models.segmenter import Normalization, SegmentationOutput, Segmenter

AS_STORED = EvaluationConfig(dataset="cityscapes", input_size=None)


def drawn_ids(seed: int, size: tuple[int, int], highest: int = 18) -> Bytes:
    return np.random.default_rng(seed).integers(0, highest + 1, size, dtype=np.uint8)


def score(samples: list[Sample], config: EvaluationConfig = AS_STORED) -> Scores:
    return evaluate(ColorSegmenter(), samples, config=config, label_space=CITYSCAPES)


def brute_force(pairs: list[tuple[Bytes, Bytes]]) -> tuple[list[float], float]:
    """IoU of each class from sets of pixels, and the share of right ones; pairs of predictions and
    labels."""
    pixels = {
        (image, y, x): (int(predicted[y, x]), int(labels[y, x]))
        for image, (predicted, labels) in enumerate(pairs)
        for y in range(labels.shape[0])
        for x in range(labels.shape[1])
        if labels[y, x] != IGNORE_INDEX
    }
    ious = []
    for class_ in range(19):
        found = {where for where, (predicted, _) in pixels.items() if predicted == class_}
        there = {where for where, (_, label) in pixels.items() if label == class_}
        union = found | there
        ious.append(len(found & there) / len(union) if union else math.nan)
    right = sum(predicted == label for predicted, label in pixels.values())
    return ious, right / len(pixels)


def test_scores_equal_brute_force_over_images_of_several_sizes(tmp_path: Path) -> None:
    samples, pairs = [], []
    for index, size in enumerate([(12, 20), (9, 31), (12, 20)]):
        predicted = drawn_ids(index, size, 16)
        labels = predicted.copy()
        wrong = np.random.default_rng(index).random(size) < 0.5
        labels[wrong] = drawn_ids(index + 10, size, 15)[wrong]
        labels[:2] = IGNORE_INDEX
        samples.append(written_sample(tmp_path, f"{index}", colors_of(predicted), labels))
        pairs.append((predicted, labels))
    found = score(samples)
    ious, accuracy = brute_force(pairs)
    assert found.iou == pytest.approx(ious, nan_ok=True)
    assert found.miou == pytest.approx(float(np.nanmean(ious)))
    assert found.pixel_accuracy == pytest.approx(accuracy)
    assert found.absent == ("motocycle", "bicycle")
    assert math.isnan(found.iou[17])
    assert sum(map(sum, found.confusion)) == 2 * 10 * 20 + 7 * 31


def test_a_class_only_predicted_scores_zero_and_pulls_the_mean_down(tmp_path: Path) -> None:
    predicted, labels = np.array([[3, 3, 5, 5]], np.uint8), np.array([[3, 3, 3, 255]], np.uint8)
    found = score([written_sample(tmp_path, "a", colors_of(predicted), labels)])
    assert found.iou[3] == pytest.approx(2 / 3)
    assert found.iou[5] == 0
    assert found.miou == pytest.approx(1 / 3)
    assert len(found.absent) == 17


def test_predictions_are_scored_at_the_resolution_of_the_labels(tmp_path: Path) -> None:
    """Every other column of the labels is road: at half the resolution they could not be told."""
    labels = np.full((16, 32), 4, np.uint8)
    labels[:, ::2] = 0
    sample = written_sample(tmp_path, "a", colors_of(np.full((16, 32), 4, np.uint8)), labels)
    found = score([sample], EvaluationConfig(dataset="cityscapes", input_size=(4, 8)))
    assert found.confusion[0][4] == found.confusion[4][4] == 16 * 16
    assert sum(map(sum, found.confusion)) == 16 * 32


def test_input_is_resized_and_probabilities_are_brought_back(tmp_path: Path) -> None:
    image = noise(5, (24, 40))
    image[..., 0] %= 190
    sample = written_sample(tmp_path, "a", image, drawn_ids(0, (24, 40)))
    with Image.open(sample.image) as stored:
        resized = np.asarray(stored.resize((20, 12), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None] / 255
    logits = ColorSegmenter()(pixels).logits
    logits = F.interpolate(logits, (24, 40), mode="bilinear", align_corners=False)
    config = EvaluationConfig(dataset="cityscapes", input_size=(12, 20))
    ((views, found),) = predictions(
        ColorSegmenter(), [sample], config=config, label_space=CITYSCAPES, workers=0
    )
    assert found.shape == (19, 24, 40)
    assert found.dtype == torch.float32
    assert views.size == (24, 40)
    torch.testing.assert_close(found, logits[0].softmax(0))


def test_scales_and_flips_are_averaged_probabilities(tmp_path: Path) -> None:
    segmenter = ColorSegmenter(slope=0.4)
    image = noise(6, (10, 14))
    image[..., 0] %= 190
    sample = written_sample(tmp_path, "a", image)
    parts = []
    with Image.open(sample.image) as stored:
        for size in ((10, 14), (15, 21)):
            resized = stored.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255
            plain = segmenter(pixels).logits
            mirrored = segmenter(pixels.flip(3)).logits.flip(3)
            for logits in (plain, mirrored):
                full = F.interpolate(logits, (10, 14), mode="bilinear", align_corners=False)
                parts.append(full[0].softmax(0))
    assert not torch.allclose(parts[0], parts[1])

    def found(*, scales: tuple[float, ...], flip: bool) -> Tensor:
        config = EvaluationConfig(dataset="cityscapes", input_size=None, scales=scales, flip=flip)
        ((_, probabilities),) = predictions(
            segmenter, [sample], config=config, label_space=CITYSCAPES, workers=0
        )
        return probabilities

    torch.testing.assert_close(found(scales=(1.0,), flip=False), parts[0])
    torch.testing.assert_close(found(scales=(1.0,), flip=True), (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(found(scales=(1.0, 1.5), flip=False), (parts[0] + parts[2]) / 2)
    torch.testing.assert_close(found(scales=(1.0, 1.5), flip=True), torch.stack(parts).mean(0))


def test_predict_takes_several_sizes_of_an_image() -> None:
    images = [torch.full((3, size, 2 * size), 120, dtype=torch.uint8) for size in (4, 8)]
    probabilities = predict(
        ColorSegmenter(), images, size=(6, 12), config=EvaluationConfig(dataset="x")
    )
    assert probabilities.shape == (19, 6, 12)
    assert torch.equal(probabilities.argmax(0), torch.full((6, 12), 12))
    torch.testing.assert_close(probabilities.sum(0), torch.ones(6, 12))


def test_a_scale_that_leaves_no_pixel_is_refused(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", noise(0), drawn_ids(0, (8, 16)))
    with pytest.raises(InputError, match=r"evaluation\.scales \(1\.0, 0\.01\): 16x8 times"):
        score([sample], EvaluationConfig(dataset="cityscapes", input_size=None, scales=(1.0, 0.01)))


def test_the_protocol_names_all_that_changes_a_number() -> None:
    assert protocol(EvaluationConfig(dataset="cityscapes")) == (
        "cityscapes val; input 1024x512; scale 1; no flip; labels at stored resolution"
    )
    config = EvaluationConfig(dataset="cityscapes", input_size=None, scales=(0.75, 1.0), flip=True)
    assert input_protocol(config) == "input as stored; scale 0.75, 1; flip"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_surface_as_one_line(tmp_path: Path, workers: int) -> None:
    good = written_sample(tmp_path, "a", noise(0), drawn_ids(0, (8, 16)))
    corrupt = written_sample(tmp_path, "b", noise(1), drawn_ids(1, (8, 16)))
    corrupt.image.write_bytes(corrupt.image.read_bytes()[:70])
    outside = written_sample(tmp_path, "c", noise(2), drawn_ids(2, (8, 16)))
    assert outside.labels is not None
    write_png(outside.labels, np.full((8, 16), 255, np.uint8))
    for bad, message in ((corrupt, "b.png cannot be decoded"), (outside, "label values 255")):
        with pytest.raises(InputError) as refusal:
            list(
                predictions(
                    ColorSegmenter(), [good, bad], config=AS_STORED, label_space=CITYSCAPES,
                    workers=workers,
                )
            )  # fmt: skip
        assert message in str(refusal.value)
        assert "\n" not in str(refusal.value)


def tiny_segmenter(seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return tiny_model().build(CITYSCAPES.num_classes)


def test_loader_processes_change_no_prediction(toy_root: Path) -> None:
    samples = list_dataset(toy_root, "cityscapes", "val", labeled=True)
    segmenter = tiny_segmenter()
    config = EvaluationConfig(dataset="cityscapes", input_size=(32, 64))
    before = torch.get_rng_state()
    alone, together = (
        list(predictions(segmenter, samples, config=config, label_space=CITYSCAPES, workers=n))
        for n in (0, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert [views.stem for views, _ in alone] == [sample.stem for sample in samples]
    for (ours, left), (theirs, right) in zip(alone, together, strict=True):
        assert (ours.stem, ours.size) == (theirs.stem, theirs.size)
        assert ours.labels is not None
        assert theirs.labels is not None
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(left, right)


def test_evaluation_changes_no_weight_and_no_statistic(toy_root: Path) -> None:
    samples = list_dataset(toy_root, "cityscapes", "val", labeled=True)
    segmenter = tiny_segmenter().train()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    evaluate(segmenter, samples, config=EvaluationConfig(dataset="cityscapes", input_size=(32, 64)),
             label_space=CITYSCAPES)  # fmt: skip
    assert not segmenter.training
    for name, tensor in segmenter.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class OneNorm(Segmenter):
    """Batch normalization of the image itself, so that its statistics are those of the pixels."""

    def __init__(self) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(nn.BatchNorm2d(3), provenance="none", normalization=nothing)

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def coarse_output(self, normalized: Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.backbone(normalized), None, normalized)


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


def test_adapting_batch_norm_changes_running_statistics_only(toy_root: Path) -> None:
    segmenter = tiny_segmenter().train()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    folder = toy_root / "Cityscapes" / "leftImg8bit" / "train"
    said = adapt_batch_norm(
        segmenter, folder, EvaluationConfig(dataset="cityscapes", input_size=(32, 64))
    )
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
    said = adapt_batch_norm(segmenter, tmp_path, AS_STORED)
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
    assert "on 160 of 170 unlabeled images" in adapt_batch_norm(OneNorm(), tmp_path, AS_STORED)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"there are no \.png or \.jpg images below"):
            adapt_batch_norm(OneNorm(), folder, AS_STORED)


def test_images_that_share_no_size_need_one(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(0, (6, 10)))
    write_png(tmp_path / "b.png", noise(1, (8, 10)))
    with pytest.raises(InputError, match=r"images of different sizes .* give --input-size WxH"):
        adapt_batch_norm(OneNorm(), tmp_path, AS_STORED)
    adapt_batch_norm(OneNorm(), tmp_path, EvaluationConfig(dataset="cityscapes", input_size=(4, 4)))


def test_label_files_are_not_taken_for_images(toy_root: Path) -> None:
    with pytest.raises(InputError, match=r"gtFine_labelIds\.png: mode L is no color image"):
        adapt_batch_norm(
            OneNorm(),
            toy_root / "Cityscapes",
            EvaluationConfig(dataset="cityscapes", input_size=(4, 4)),
        )


def test_a_network_without_batch_norm_has_nothing_to_adapt(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    with pytest.raises(InputError, match="this network has no batch norm"):
        adapt_batch_norm(ColorSegmenter(), tmp_path, AS_STORED)


class TwoColumns(Segmenter):
    """Two classes, two columns of logits for any image: the main head's and the auxiliary's."""

    def __init__(self, main: tuple[float, float], auxiliary: tuple[float, float]) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(
            nn.Conv2d(1, 1, 1), provenance="none", normalization=nothing, align_corners=True
        )
        self.columns = [torch.tensor([[[[0.0, 0.0]], [list(c)]]]) for c in (main, auxiliary)]

    @property
    def has_auxiliary_head(self) -> bool:
        return True

    def coarse_output(self, normalized: Tensor) -> SegmentationOutput:
        main, auxiliary = self.columns
        return SegmentationOutput(main, auxiliary, normalized)


def second_class(network: Segmenter, **changes: object) -> list[float]:
    """The probability of class 1 in three pixels, of which the middle one lies between columns."""
    config = EvaluationConfig(dataset="x", **changes)  # type: ignore[arg-type]
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    found: list[float] = predict(network, [image], size=(1, 3), config=config)[1, 0].tolist()
    return found


def test_what_is_upsampled_decides_what_lies_between() -> None:
    """Logits ln 3 and 0: probabilities 3/4 and 1/2, and between them sigmoid(ln 3 / 2) or 5/8."""
    network = TwoColumns((math.log(3), 0.0), (0.0, 0.0))
    half_way = math.sqrt(3) / (1 + math.sqrt(3))
    assert second_class(network, upsample="logits") == pytest.approx([0.75, half_way, 0.5])
    assert second_class(network, upsample="probabilities") == pytest.approx([0.75, 0.625, 0.5])


@pytest.mark.parametrize("upsample", ["via_input", "logits", "probabilities"])
def test_both_heads_count_the_auxiliary_half(upsample: str) -> None:
    network = TwoColumns((0.0, 0.0), (2 * math.log(3), 2 * math.log(3)))
    main = second_class(network, upsample=upsample)
    assert main == pytest.approx([0.5, 0.5, 0.5])
    both = second_class(network, upsample=upsample, heads="fused")
    assert both == pytest.approx([0.75, 0.75, 0.75])


@pytest.mark.parametrize("upsample", ["via_input", "logits", "probabilities"])
def test_a_mirror_image_is_turned_back_before_it_is_added(upsample: str) -> None:
    """This network says the same of both, so the average has the two columns mixed."""
    network = TwoColumns((math.log(3), 0.0), (0.0, 0.0))
    left, _, right = second_class(network, upsample=upsample, flip=True)
    assert (left, right) == pytest.approx((0.625, 0.625))


def test_the_protocol_names_heads_and_upsampling() -> None:
    config = EvaluationConfig(dataset="x", scales=(1.0, 1.25), flip=True, heads="fused",
                              upsample="probabilities")  # fmt: skip
    assert input_protocol(config) == (
        "input 1024x512; scale 1, 1.25; flip; both heads; probabilities upsampled"
    )
