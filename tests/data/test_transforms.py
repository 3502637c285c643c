"""Resize, crop and mirror: images and labels stay aligned, and the log's rules hold."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from factories import Bytes, colors_of, noise, written_sample
from uda.augmentation.policies import PolicyName
from uda.data.config import DomainConfig
from uda.data.files import StoredImage, read_image
from uda.data.fixed_point import resize_fixed_point
from uda.data.samples import Sample
from uda.data.transforms import (
    CroppedSample,
    Interpolation,
    fitted_size,
    load_cropped,
    resize_image,
)
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError


def load(
    sample: Sample, domain: DomainConfig, crop: tuple[int, int], *, seed: int = 0
) -> CroppedSample:
    return load_cropped(
        sample,
        domain,
        crop=crop,
        label_space=CITYSCAPES,
        pseudo_labels=None,
        rng=np.random.default_rng(seed),
    )


def domain_of(size: tuple[int, int], **fields: object) -> DomainConfig:
    return replace(DomainConfig(datasets=("drawn",)), size=size, **fields)  # type: ignore[arg-type]


def blocks(seed: int, *, count: tuple[int, int] = (4, 8), side: int = 16) -> Bytes:
    """Train ids in squares of `side` pixels."""
    ids = np.random.default_rng(seed).integers(0, 19, count, dtype=np.uint8)
    return np.kron(ids, np.ones((side, side), np.uint8))


def positions(size: tuple[int, int]) -> Bytes:
    """A picture whose red is the column and whose green is the row of each pixel."""
    rows, columns = np.indices(size)
    return np.stack([columns, rows, np.zeros(size)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mirror", [False, True])
def test_images_and_labels_stay_aligned(tmp_path: Path, seed: int, mirror: bool) -> None:
    train_ids = np.random.default_rng(9).integers(0, 19, (40, 60), dtype=np.uint8)
    sample = written_sample(tmp_path, "a", colors_of(train_ids), train_ids)
    image, labels, *_ = load(sample, domain_of((40, 60), mirror=mirror), (16, 24), seed=seed)
    assert labels is not None
    assert image.shape == (3, 16, 24)
    assert labels.shape == (16, 24)
    assert image.dtype == labels.dtype == np.uint8
    assert image.flags.c_contiguous
    assert labels.flags.c_contiguous
    assert np.array_equal(image[0], 10 * labels)


@pytest.mark.parametrize("seed", range(6))
def test_they_stay_aligned_when_resized(tmp_path: Path, seed: int) -> None:
    train_ids = blocks(seed)
    sample = written_sample(tmp_path, "a", colors_of(train_ids), train_ids)
    domain = domain_of((80, 150), scale=(0.8, 1.2), mirror=True)
    image, labels, *_ = load(sample, domain, (60, 110), seed=seed)
    assert labels is not None
    seen = (image[0] / 10).round()
    assert (seen == labels).mean() > 0.8  # all but the seams, where bicubic colors mix
    assert (seen[:, ::-1] == labels).mean() < 0.5


def test_half_of_the_samples_are_mirrored(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", positions((8, 16)))
    domain = domain_of((8, 16), mirror=True)
    upright = positions((8, 16)).transpose(2, 0, 1)
    mirrored = 0
    for seed in range(200):
        image, labels, *_ = load(sample, domain, (8, 16), seed=seed)
        assert labels is None
        flipped = not np.array_equal(image, upright)
        assert not flipped or np.array_equal(image, upright[:, :, ::-1])
        mirrored += flipped
    assert 75 < mirrored < 125
    plain = replace(domain, mirror=False)
    assert all(np.array_equal(load(sample, plain, (8, 16), seed=s).image, upright)
               for s in range(20))  # fmt: skip


def test_sizes_are_rounded_factors_of_the_set_size(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", noise(0, (20, 30)), blocks(0)[:20, :30])
    # 10 * 0.87 = 8.7 and 15 * 0.87 = 13.05
    cropped = load(sample, domain_of((10, 15), scale=(0.87, 0.87)), (9, 13))
    assert cropped.labels is not None
    with Image.open(sample.image) as image:
        expected = np.asarray(image.resize((13, 9), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(cropped.image, expected)


def test_factors_fill_their_range(tmp_path: Path) -> None:
    """A crop of one row out of an image of rows tells the factor: the brightness step per row."""
    size = (200, 8)
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 8, axis=1)
    sample = written_sample(tmp_path, "a", np.stack([ramp] * 3, axis=2))
    factors = []
    for seed in range(60):
        image, *_ = load(sample, domain_of(size, scale=(0.8, 1.2)), (100, 4), seed=seed)
        step = (float(image[0, 90, 0]) - float(image[0, 10, 0])) / 80
        factors.append(1 / step)
    assert 0.78 < min(factors) < 0.84
    assert 1.16 < max(factors) < 1.22


def by_the_rule(
    labels: Bytes, crop: tuple[int, int], more_than: int, seed: int
) -> tuple[tuple[int, int], int]:
    """(top, left) of the first of ten uniform crops with more than so many values, else of the
    tenth, and how many were drawn."""
    rng = np.random.default_rng(seed)
    rng.uniform(1, 1)  # the factor on the size comes first
    tries = 0
    while tries < 10:
        tries += 1
        top = int(rng.integers(0, labels.shape[0] - crop[0], endpoint=True))
        left = int(rng.integers(0, labels.shape[1] - crop[1], endpoint=True))
        values = {int(v) for v in labels[top : top + crop[0], left : left + crop[1]].ravel()}
        if len(values) > more_than:
            break
    return (top, left), tries


def test_crops_with_too_few_label_values_are_drawn_again_up_to_ten_times(tmp_path: Path) -> None:
    size, crop = (40, 120), (12, 24)
    labels = np.zeros(size, np.uint8)
    labels[:, 85:] = np.random.default_rng(0).integers(0, 19, (40, 35))
    sample = written_sample(tmp_path, "a", positions(size), labels)
    domain = domain_of(size, crop_label_values=10)
    tries_needed = []
    for seed in range(60):
        expected, tries = by_the_rule(labels, crop, 10, seed)
        tries_needed.append(tries)
        image, found, *_ = load(sample, domain, crop, seed=seed)
        assert found is not None
        assert (int(image[1, 0, 0]), int(image[0, 0, 0])) == expected
        if tries < 10:
            assert len(np.unique(found)) > 10
    assert 1 in tries_needed
    assert any(1 < tries < 10 for tries in tries_needed)
    assert 10 in tries_needed


def test_ignored_pixels_count_as_a_label_value(tmp_path: Path) -> None:
    size, crop = (20, 64), (20, 16)
    labels = np.tile(np.arange(10, dtype=np.uint8), 128).reshape(size)  # ten values everywhere
    labels[:, 48:][::3] = IGNORE_INDEX  # at the right end eleven
    sample = written_sample(tmp_path, "a", positions(size), labels)
    lefts = []
    for seed in range(30):
        expected, tries = by_the_rule(labels, crop, 10, seed)
        image, *_ = load(sample, domain_of(size, crop_label_values=10), crop, seed=seed)
        assert int(image[0, 0, 0]) == expected[1]
        if tries < 10:
            lefts.append(expected[1])
    assert lefts
    assert min(lefts) > 32


def test_without_the_rule_the_first_crop_is_taken_and_all_are_as_likely(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", positions((6, 9)), np.zeros((6, 9), np.uint8))
    corners = []
    for seed in range(300):
        image, *_ = load(sample, domain_of((6, 9)), (4, 8), seed=seed)
        corners.append((int(image[1, 0, 0]), int(image[0, 0, 0])))
    assert set(corners) == {(top, left) for top in range(3) for left in range(2)}
    assert all(25 < corners.count(corner) < 75 for corner in set(corners))


@pytest.mark.parametrize("size", [(37, 61), (64, 96), (90, 200)])
def test_a_crop_of_the_resized_image_is_what_resizing_all_of_it_gives(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    sample = written_sample(tmp_path, "a", noise(4, (50, 80)), blocks(4)[:50, :80])
    crop = (30, 40)
    with Image.open(sample.image) as stored:
        whole = np.asarray(stored.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    assert sample.labels is not None
    with Image.open(sample.labels) as stored:
        raw = np.asarray(stored.resize((size[1], size[0]), Image.Resampling.NEAREST))
    for seed in range(8):
        image, labels, *_ = load(sample, domain_of(size), crop, seed=seed)
        (top, left), _ = by_the_rule(np.zeros(size, np.uint8), crop, 0, seed)
        inside = slice(top, top + crop[0]), slice(left, left + crop[1])
        difference = image.astype(int) - whole[inside].transpose(2, 0, 1)
        assert abs(difference).max() <= 1
        assert labels is not None
        assert np.array_equal(labels, CITYSCAPES.to_train_ids(raw[inside], "whole"))


def test_the_same_generator_gives_the_same_sample(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", noise(0, (40, 60)), blocks(1)[:40, :60])
    domain = domain_of((40, 60), scale=(0.8, 1.2), mirror=True, crop_label_values=3)
    first, again = (load(sample, domain, (20, 30), seed=5) for _ in range(2))
    other = load(sample, domain, (20, 30), seed=6)
    assert np.array_equal(first.image, again.image)
    assert first.labels is not None
    assert again.labels is not None
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_labels_of_another_size_than_the_image_are_refused(tmp_path: Path) -> None:
    image = written_sample(tmp_path, "a", noise(0, (40, 60)))
    labels = written_sample(tmp_path, "b", noise(0, (40, 61)), np.zeros((40, 61), np.uint8)).labels
    with pytest.raises(InputError, match="labels are 61x40, the image is 60x40"):
        load(image._replace(labels=labels), domain_of((40, 60)), (40, 60))


def test_resize_image(tmp_path: Path) -> None:
    pixels = noise(1, (10, 20))
    image = read_image(written_sample(tmp_path, "a", pixels).image)
    for size in (None, (10, 20)):
        assert np.array_equal(resize_image(image, size), pixels.transpose(2, 0, 1))
    resized = resize_image(image, (5, 8))
    assert resized.shape == (3, 5, 8)
    assert resized.dtype == np.uint8
    methods: tuple[tuple[Interpolation, Image.Resampling], ...] = (
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
        ("nearest", Image.Resampling.NEAREST),
    )
    assert np.array_equal(resized, resize_image(image, (5, 8), "bicubic"))
    for interpolation, method in methods:
        expected = np.asarray(image.resize((8, 5), method)).transpose(2, 0, 1)
        assert np.array_equal(resize_image(image, (5, 8), interpolation), expected)


@pytest.mark.parametrize("stored", [(48, 80), (7, 9), (1, 5)])
@pytest.mark.parametrize("size", [(24, 40), (17, 29), (96, 160), (48, 33), (61, 107), (1, 1)])
def test_bilinear_without_antialiasing_is_opencvs(
    stored: tuple[int, int], size: tuple[int, int]
) -> None:
    """The same bytes as OpenCV's. PyTorch's are nowhere further than one away."""
    cv2 = pytest.importorskip("cv2")
    pixels = noise(3, stored)
    found = resize_image(Image.fromarray(pixels), size, "bilinear_no_antialias")
    theirs = cv2.resize(pixels, (size[1], size[0])).transpose(2, 0, 1)
    assert found.dtype == np.uint8
    assert np.array_equal(found, theirs)
    exact = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    exact = F.interpolate(exact, size, mode="bilinear", align_corners=False)[0]
    assert (torch.from_numpy(found) - exact).abs().max() < 1.0


@pytest.mark.parametrize(
    ("stored", "box", "factor", "expected"),
    [
        ((1000, 2000), (512, 2048), 1.0, (512, 1024)),  # the short side of the box binds
        ((2000, 1000), (512, 2048), 1.0, (1024, 512)),  # upright
        ((100, 1000), (512, 2048), 1.0, (205, 2048)),  # the long side
        ((825, 550), (512, 2048), 0.5, (384, 256)),
        ((1052, 1914), (720, 1280), 1.0, (704, 1280)),  # GTA5 in DAFormer
        ((101, 200), (100, 100), 1.0, (51, 100)),  # halves go up, as in mmcv
        ((1, 3000), (10, 10), 0.5, (1, 5)),  # never without a pixel
    ],
)
def test_a_box_that_keeps_the_shape(
    stored: tuple[int, int], box: tuple[int, int], factor: float, expected: tuple[int, int]
) -> None:
    assert fitted_size(stored, box, factor) == expected
    assert fitted_size(stored, (box[1], box[0]), factor) == expected


def test_what_is_smaller_than_the_crop_is_padded(tmp_path: Path) -> None:
    ids = blocks(0)[:20, :40]
    sample = written_sample(tmp_path, "a", noise(0, (20, 40)), ids)
    domain = domain_of((20, 40), keep_ratio=True, scale=(0.5, 0.5))
    image, labels, *_ = load(sample, domain, (16, 12))
    assert labels is not None
    assert image.shape == (3, 16, 12)
    assert (image[:, 10:].transpose(1, 2, 0) == (124, 116, 104)).all()
    assert (labels[10:] == IGNORE_INDEX).all()
    assert (labels[:10] != IGNORE_INDEX).all()
    assert (image[:, :10].reshape(3, -1).std(axis=1) > 10).all()


def test_a_crop_in_the_middle(tmp_path: Path) -> None:
    size = (20, 40)
    sample = written_sample(tmp_path, "a", positions(size), blocks(0)[:20, :40])
    for seed in range(3):
        image, *_ = load(sample, domain_of(size, center_crop=True), (10, 20), seed=seed)
        assert image[:2, 0, 0].tolist() == [10, 5]


def test_crops_are_drawn_until_no_class_fills_them(tmp_path: Path) -> None:
    """Class 0 fills all but the right end, and the ignored half of that does not count."""
    ids = np.zeros((8, 80), np.uint8)
    ids[:, 60:70], ids[:, 70:] = 1, IGNORE_INDEX
    raw = CITYSCAPES.to_raw_ids(ids, ignored=0)
    sample = written_sample(tmp_path, "a", noise(0, (8, 80)), ids)
    assert set(np.unique(raw)) == {0, 7, 8}
    shares = []
    for seed in range(40):
        domain = domain_of((8, 80), crop_max_share=0.75)
        _, labels, *_ = load(sample, domain, (8, 20), seed=seed)
        assert labels is not None
        counts = np.bincount(labels.ravel(), minlength=256)[:255]
        shares.append(counts.max() / counts.sum())
    # A crop is good when it begins at 46 to 57, 12 of 61 places; ten tries miss them in 11 %.
    assert np.mean([share <= 0.75 for share in shares]) > 0.7


def test_sides_change_places_with_the_picture(tmp_path: Path) -> None:
    ids = blocks(3)[:16, :32]
    sample = written_sample(tmp_path, "a", positions((16, 32)), ids)
    sides = replace(CITYSCAPES, mirror_swaps=((0, 1), (17, 18)))
    domain = domain_of((16, 32), mirror=True)
    seen = set()
    for seed in range(8):
        image, labels, *_ = load_cropped(
            sample, domain, crop=(16, 32), label_space=sides, pseudo_labels=None,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        mirrored = image[0, 0, 0] > 0
        seen.add(bool(mirrored))
        assert labels is not None
        assert labels.tolist() == (sides.mirror(ids) if mirrored else ids).tolist()
    assert seen == {False, True}
    assert sides.mirror(ids).tolist() != ids[:, ::-1].tolist()


def test_labels_are_read_as_their_data_set_writes_them(tmp_path: Path) -> None:
    ids = blocks(4)[:16, :32]
    sample = written_sample(tmp_path, "a", noise(0, (16, 32)), ids)
    raw = CITYSCAPES.to_raw_ids(ids, ignored=0)
    Image.fromarray(100 + raw).save(tmp_path / "shifted.png")
    shifted = {raw_id + 100: train_id for raw_id, train_id in CITYSCAPES.raw_to_train.items()}
    own = replace(CITYSCAPES, name="shifted", raw_to_train=shifted)
    other = sample._replace(labels=tmp_path / "shifted.png", space=own)
    domain = domain_of((16, 32))
    assert load(other, domain, (16, 32)).labels.tolist() == ids.tolist()  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"shifted\.png: label values .* are outside the raw ids"):
        load(other._replace(space=None), domain, (16, 32))


# --- how a domain is read: interpolation, crops of its own, borders


@pytest.mark.parametrize("size", [(40, 61), (97, 150), (64, 128)])
def test_a_crop_without_antialiasing_is_part_of_the_whole_image(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Bit by bit, though only the crop is computed."""
    pixels = noise(2, (64, 128))
    sample = written_sample(tmp_path, "a", pixels)
    whole = resize_fixed_point(pixels, size) if size != (64, 128) else pixels
    domain = domain_of(size, interpolation="bilinear_no_antialias")
    places = positions(size)
    marked = written_sample(tmp_path, "b", places)
    for seed in range(5):
        found = load(sample, domain, (32, 50), seed=seed).image
        corner = load(marked, domain_of(size), (32, 50), seed=seed)  # the same place
        rng = np.random.default_rng(seed)
        rng.uniform(1, 1)
        top, left = (int(rng.integers(size[axis] - (32, 50)[axis] + 1)) for axis in (0, 1))
        assert corner.image[:2, 0, 0].tolist() == [left, top]
        expected = whole[top : top + 32, left : left + 50].transpose(2, 0, 1)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("policy", [None, "photometric_distortion", "autoaugment"])
def test_images_are_resized_as_their_domain_says(tmp_path: Path, policy: PolicyName | None) -> None:
    sample = written_sample(tmp_path, "a", noise(2, (64, 128)))
    found = {}
    for how in ("bicubic", "bilinear", "bilinear_no_antialias"):
        domain = domain_of((40, 61), interpolation=how, policy=policy)
        found[how] = load(sample, domain, (40, 61)).image
        if policy is None:
            whole = resize_image(read_image(sample.image), (40, 61), how)
            assert np.array_equal(found[how], whole)
    default = load(sample, domain_of((40, 61), policy=policy), (40, 61)).image
    assert np.array_equal(default, found["bicubic"])
    assert len({image.tobytes() for image in found.values()}) == 3


def test_a_class_may_have_just_the_largest_share_or_must_have_less(tmp_path: Path) -> None:
    """DAFormer takes a crop whose largest class has less than 0.75 of the labeled pixels."""
    ids = np.zeros((4, 60), np.uint8)
    ids[0] = 1  # three quarters are of class 0 wherever the crop is
    sample = written_sample(tmp_path, "a", positions((4, 60)), ids)

    def place(**rules: object) -> list[int]:
        domain = domain_of((4, 60), crop_max_share=0.75, **rules)
        return [int(load(sample, domain, (4, 10), seed=seed).image[0, 0, 0]) for seed in range(9)]

    def drawn(number: int) -> list[int]:
        found = []
        for seed in range(9):
            rng = np.random.default_rng(seed)
            rng.uniform(1, 1)
            found.append([(rng.integers(1), int(rng.integers(51)))[1] for _ in range(number)][-1])
        return found

    assert place() == drawn(1)
    assert place(crop_share_rule="below") == drawn(10)
    assert place(crop_share_rule="below", crop_tries=11) == drawn(11)  # ten more, as in DAFormer


def borders_of(
    stored: tuple[int, int],
    borders: tuple[float, float, float, float],
    *,
    crop: tuple[int, int] | None = None,
    **fields: object,
) -> Callable[[int], Bytes]:
    """Where labels count in a crop, as 0 and 1, by the seed."""

    def found(seed: int) -> Bytes:
        image = Sample("drawn", "a", Path("a.png"), None)
        domain = replace(domain_of(stored, ignored_borders=borders), **fields)  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            blank = Image.new("RGB", (stored[1], stored[0]))
            opened = StoredImage(blank, image.image, upright=False, image_range=None)
            patch.setattr("uda.data.transforms.stored_image", lambda *_, **__: nullcontext(opened))
            valid = load(image, domain, crop or domain.size, seed=seed).valid
        assert valid is not None
        assert valid.dtype == np.bool_
        assert valid.flags.c_contiguous
        return valid.astype(np.uint8)

    return found


@pytest.mark.parametrize("borders", [(30, 256, 61, 61), (0.03, 0.25, 0.03, 0.03)])
def test_borders_are_pixels_or_shares_of_the_stored_image(
    borders: tuple[float, float, float, float],
) -> None:
    """VFM-UDA's shares of Cityscapes."""
    valid = borders_of((1024, 2048), borders)(0)
    expected = np.zeros((1024, 2048), np.uint8)
    expected[30:768, 61:1987] = 1
    assert np.array_equal(valid, expected)


def test_borders_shrink_with_the_image() -> None:
    """HRDA's, at half the size."""
    valid = borders_of((1024, 2048), (30, 240, 30, 30), size=(512, 1024))(0)
    expected = np.zeros((512, 1024), np.uint8)
    expected[15:392, 15:1009] = 1
    assert np.array_equal(valid, expected)


@pytest.mark.parametrize("seed", range(6))
def test_borders_go_with_the_image(seed: int) -> None:
    """As a picture of them would that is resized, cropped and mirrored as labels are."""
    stored, borders = (57, 83), (5, 0.25, 9, 1)
    picture = np.zeros(stored, np.uint8)
    picture[5 : 57 - 14, 9 : 83 - 1] = 1
    fields = {"size": (80, 150), "scale": (0.6, 1.2), "mirror": True, "keep_ratio": True}
    valid = borders_of(stored, borders, crop=(60, 110), **fields)(seed)
    rng = np.random.default_rng(seed)
    size = fitted_size(stored, (80, 150), rng.uniform(0.6, 1.2))
    top, left = (int(rng.integers(max(size[axis] - (60, 110)[axis], 0) + 1)) for axis in (0, 1))
    resized = np.asarray(Image.fromarray(picture).resize((size[1], size[0]), 0))
    part = resized[top : top + 60, left : left + 110]
    padded = np.zeros((60, 110), np.uint8)  # beside the image, nothing counts
    padded[: part.shape[0], : part.shape[1]] = part
    assert np.array_equal(valid, padded[:, ::-1] if rng.random() < 0.5 else padded)


def test_borders_may_leave_nothing_and_are_checked() -> None:
    assert not borders_of((8, 16), (5, 5, 0, 0))(0).any()
    for borders in ((-1, 0, 0, 0), (0, 0, 1.5, 0)):
        domain = domain_of((8, 16), ignored_borders=borders)
        with pytest.raises(InputError, match=r"ignored_borders is .* such as 30,240,30,30"):
            domain.check("data.target", crop=(8, 16))


def test_prodas_weak_view_has_a_long_side_of_2200() -> None:
    """A square box says so of images of either domain."""
    for stored, expected in (((1052, 1914), (1209, 2200)), ((1024, 2048), (1100, 2200))):
        assert fitted_size(stored, (2200, 2200)) == expected
