"""The toy city's streets: labels and colors agree, class shares are known, the gap is real."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from uda.data.toy_city import drawing as toy_drawing
from uda.data.toy_city import objects as toy_objects
from uda.data.toy_city.city import toy_image
from uda.data.toy_city.scene import LAYOUTS, Domain, draw_scene
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX

DOMAINS: tuple[Domain, ...] = ("source", "target")

# Percent of the pixels, by train id; the last entry is void. The layouts are tuned to these, so
# that results on the toy city stay comparable when its painters change.
PIXEL_SHARES: dict[Domain, tuple[float, ...]] = {
    "source": (
        18.3, 10.5, 16.8, 2.1, 1.3, 1.2, 1.1, 1.2, 12.0, 4.8, 15.2, 1.5, 1.0, 5.6, 1.9, 1.5, 2.0,
        1.1, 1.0, 0.0,
    ),
    "target": (
        9.3, 10.6, 17.6, 1.3, 1.0, 1.2, 1.1, 1.3, 18.1, 2.8, 18.9, 2.2, 0.8, 5.9, 0.9, 0.7, 1.6,
        0.5, 1.2, 3.1,
    ),
}  # fmt: skip


def saturation(image: npt.NDArray[np.uint8]) -> float:
    pixels = image.astype(np.float64)
    return float(((pixels.max(2) - pixels.min(2)) / np.maximum(pixels.max(2), 1)).mean())


def test_the_painters_use_the_train_ids_of_cityscapes() -> None:
    for train_id, name in enumerate(CITYSCAPES.classes):
        assert getattr(toy_drawing, name.upper().replace(" ", "_")) == train_id


@pytest.mark.parametrize("domain", DOMAINS)
def test_class_shares(domain: Domain) -> None:
    counts = np.zeros((100, 256), np.int64)
    for index in range(len(counts)):
        train_ids = toy_image(domain, index, seed=0).train_ids
        counts[index] = np.bincount(train_ids.ravel(), minlength=256)
    kept = counts[:, [*range(CITYSCAPES.num_classes), IGNORE_INDEX]]
    assert kept.sum() == counts.sum(), "a label outside the 19 classes and void"
    assert ((kept[:, :19] > 0).mean(0) >= 0.1).all(), "a class in less than a tenth of the images"
    shares = 100 * kept.sum(0) / kept.sum()
    expected = np.array(PIXEL_SHARES[domain])
    assert (shares <= 2 * expected).all()
    assert (shares >= 0.5 * expected).all()


PAINTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("car", ("car",)),
    ("truck", ("truck",)),
    ("bus", ("bus",)),
    ("person", ("person",)),
    ("motorcycle", ("motorcycle",)),
    ("bicycle", ("bicycle",)),
    ("lamp_post", ("pole",)),
    ("traffic_light", ("pole", "traffic light")),
    ("traffic_sign", ("pole", "traffic sign")),
    ("tree", ("vegetation",)),
)


@pytest.mark.parametrize(("name", "classes"), PAINTERS)
def test_an_object_labels_exactly_what_it_colors(name: str, classes: tuple[str, ...]) -> None:
    paint: Callable[[toy_drawing.Brush, np.random.Generator], None] = getattr(toy_objects, name)
    magenta = (255, 0, 254, IGNORE_INDEX)  # no painter's color
    for seed in range(5):
        canvas = Image.new("RGBA", (400, 400), magenta)
        brush = toy_drawing.Brush(ImageDraw.Draw(canvas), x=200, ground=380, unit=100)
        paint(brush, np.random.default_rng(seed))
        pixels = np.asarray(canvas)
        colored = (pixels[..., :3] != magenta[:3]).any(2)
        assert np.array_equal(colored, pixels[..., 3] != IGNORE_INDEX)
        assert {CITYSCAPES.classes[i] for i in np.unique(pixels[colored][:, 3])} == set(classes)


def test_a_rider_and_the_vehicle_have_labels_of_their_own() -> None:
    seen = set()
    for seed in range(20):
        canvas = Image.new("RGBA", (400, 400), (0, 0, 0, IGNORE_INDEX))
        brush = toy_drawing.Brush(ImageDraw.Draw(canvas), x=200, ground=380, unit=100)
        toy_objects.rider(brush, np.random.default_rng(seed))
        labels = np.unique(np.asarray(canvas)[..., 3])
        seen.add(tuple(CITYSCAPES.classes[i] for i in labels if i != IGNORE_INDEX))
    assert seen == {("rider", "motorcycle"), ("rider", "bicycle")}


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_pixel_is_blended(domain: Domain) -> None:
    """A blend of two paints would carry a color of neither label, or a label of neither color."""
    for index in range(10):
        scene = draw_scene(domain, np.random.default_rng(index), (128, 256))
        pixels = np.asarray(scene.canvas).reshape(-1, 4)
        sky = np.unique(pixels[pixels[:, 3] == toy_drawing.SKY][:, :3], axis=0)
        assert [tuple(color) for color in sky.tolist()] in [[sky] for sky in LAYOUTS[domain].skies]
        assert len(np.unique(pixels[pixels[:, 3] == toy_drawing.ROAD], axis=0)) <= 2  # and lines
        assert (pixels[pixels[:, 3] == IGNORE_INDEX][:, :3] < 40).all()  # the bonnet is dark


def test_colors_suit_their_classes() -> None:
    colors = np.zeros((CITYSCAPES.num_classes, 3))
    for index in range(20):
        image, train_ids = toy_image("source", index, seed=0)
        for train_id in range(CITYSCAPES.num_classes):
            colors[train_id] += image[train_ids == train_id].sum(0)
    names = dict(zip(CITYSCAPES.classes, colors, strict=True))
    assert names["vegetation"].argmax() == names["terrain"].argmax() == 1  # green
    assert names["sky"].argmax() == 2  # blue
    assert np.ptp(names["road"]) < 0.1 * names["road"].max()  # gray
    assert names["wall"].argmax() == 0  # brick


def test_the_target_is_duller_and_noisier() -> None:
    source = [toy_image("source", index, seed=0).image for index in range(20)]
    target = [toy_image("target", index, seed=0).image for index in range(20)]
    assert np.mean([saturation(i) for i in target]) < 0.8 * np.mean([saturation(i) for i in source])
    assert np.mean(target) < np.mean(source)


def test_the_gap_changes_target_images_and_no_label() -> None:
    none, half, full = (toy_image("target", 2, seed=0, gap=gap) for gap in (0.0, 0.5, 1.0))
    assert np.array_equal(none.train_ids, full.train_ids)
    assert saturation(none.image) > saturation(half.image) > saturation(full.image)
    without, with_gap = (toy_image("source", 2, seed=0, gap=gap).image for gap in (0.0, 1.0))
    assert np.array_equal(without, with_gap)


def test_only_the_target_has_a_bonnet() -> None:
    assert IGNORE_INDEX not in toy_image("source", 0, seed=0).train_ids
    bonnet = toy_image("target", 0, seed=0).train_ids == IGNORE_INDEX
    assert bonnet[-1, 128]
    assert not bonnet[:115].any()
