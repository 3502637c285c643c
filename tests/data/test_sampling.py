"""The stream of batches: a function of (preset, seed), whatever loads it and wherever it starts."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from factories import cityscapes_image, raw_labels, write_cityscapes, write_gta5, write_png
from tiny_runs import batch_tensors, tiny_preset
from uda.augmentation.policies import PolicyName
from uda.data.batch import Batch
from uda.data.config import DataConfig, DomainConfig, SecondViewConfig
from uda.data.files import stored_image
from uda.data.sampling import TrainingDataset, batches, position_in_data
from uda.data.training import open_training_data
from uda.training.preflight import generated_batch
from uda.utilities.errors import InputError

CROP = (32, 64)


def dataset(root: Path, *, seed: int = 0, target: bool = True) -> TrainingDataset:
    source = DomainConfig(
        datasets=("gta5", "cyclegta5"),
        size=(64, 128),
        scale=(0.8, 1.2),
        mirror=True,
        crop_label_values=5,
    )
    data = DataConfig(
        root=str(root),
        source=source,
        target=DomainConfig(datasets=("cityscapes",), size=(48, 96)) if target else None,
        crop=CROP,
    )
    return open_training_data(data, seed=seed, evaluated="cityscapes").dataset


def stream(data: TrainingDataset, *, first_step: int = 0, workers: int = 0) -> list[Batch]:
    found = batches(data, batch_size=3, first_step=first_step, steps=6, workers=workers)
    return list(found)


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.indices == other.indices
        assert one.source_names == other.source_names
        assert one.target_names == other.target_names
        left, right = batch_tensors(one), batch_tensors(other)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def order(
    epochs: range, *, count: int = 50, seed: int = 0, stream_number: int = 0
) -> list[list[int]]:
    return [
        [
            position_in_data(k, count=count, seed=seed, stream=stream_number)
            for k in range(epoch * count, (epoch + 1) * count)
        ]
        for epoch in epochs
    ]


def test_every_pass_over_the_data_is_another_permutation() -> None:
    passes = order(range(6))
    assert all(sorted(one) == list(range(50)) for one in passes)
    assert len({tuple(one) for one in passes}) == 6
    assert passes[0] != list(range(50))


def test_seeds_and_domains_have_orders_of_their_own() -> None:
    orders = [
        order(range(1), seed=seed, stream_number=number)[0]
        for seed in range(3)
        for number in range(2)
    ]
    assert len({tuple(one) for one in orders}) == 6


def test_a_place_in_the_order_does_not_depend_on_what_was_asked_before() -> None:
    forward = [position_in_data(k, count=7, seed=3, stream=1) for k in range(70)]
    backward = [position_in_data(k, count=7, seed=3, stream=1) for k in reversed(range(70))]
    assert forward == backward[::-1]


def test_batches_have_the_shapes_of_batch(toy_root: Path) -> None:
    for batch in stream(dataset(toy_root)):
        assert batch.source_images.shape == batch.target_images.shape == (3, 3, *CROP)
        assert batch.source_labels.shape == (3, *CROP)
        for tensor in (batch.source_images, batch.target_images, batch.source_labels):
            assert tensor.dtype == torch.uint8
        assert batch.target_pseudo_labels is None
        assert all(name.startswith("cityscapes/") for name in batch.target_names)


def test_batches_without_a_target(toy_root: Path) -> None:
    (batch, *_) = stream(dataset(toy_root, target=False))
    assert batch.target_images.shape == (0, 3, *CROP)
    assert batch.target_images.dtype == torch.uint8
    assert batch.target_names == ("", "", "")
    assert batch.indices == (0, 1, 2)


def test_each_image_comes_once_per_pass(toy_root: Path) -> None:
    found = stream(dataset(toy_root))  # 18 samples: 1.5 passes over the source, 3 over the target
    assert [k for batch in found for k in batch.indices] == list(range(18))
    source = [name for batch in found for name in batch.source_names]
    target = [name for batch in found for name in batch.target_names]
    assert len(set(source[:12])) == 12
    assert [len(set(target[start : start + 6])) for start in (0, 6, 12)] == [6, 6, 6]
    assert target[:6] != target[6:12]


def test_an_image_is_augmented_otherwise_each_time(toy_root: Path) -> None:
    found = stream(dataset(toy_root))
    seen: dict[str, list[Tensor]] = {}
    for batch in found:
        for name, image in zip(batch.source_names, batch.source_images, strict=True):
            seen.setdefault(name, []).append(image)
    twice = [images for images in seen.values() if len(images) == 2]
    assert len(twice) == 6
    assert not any(torch.equal(*images) for images in twice)


def test_loader_processes_change_nothing(toy_root: Path) -> None:
    data = dataset(toy_root)
    before = torch.get_rng_state()
    alone = stream(data)
    assert_equal(alone, stream(data, workers=2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("first_step", [1, 4, 6])
def test_starting_late_gives_the_same_batches(toy_root: Path, first_step: int) -> None:
    data = dataset(toy_root)
    assert_equal(stream(data)[first_step:], stream(data, first_step=first_step))


def test_the_batch_size_changes_no_sample(toy_root: Path) -> None:
    data = dataset(toy_root)
    threes, twos = stream(data), list(batches(data, batch_size=2, first_step=0, steps=9, workers=0))
    for name in ("source_images", "source_labels", "target_images"):
        joined = [torch.cat([getattr(batch, name) for batch in some]) for some in (threes, twos)]
        assert torch.equal(*joined)


def test_another_seed_gives_other_batches(toy_root: Path) -> None:
    ours, theirs = stream(dataset(toy_root)), stream(dataset(toy_root, seed=1))
    assert not any(torch.equal(a.source_images, b.source_images)
                   for a, b in zip(ours, theirs, strict=True))  # fmt: skip


def test_a_target_does_not_change_the_source(toy_root: Path) -> None:
    with_target, without = stream(dataset(toy_root)), stream(dataset(toy_root, target=False))
    for one, other in zip(with_target, without, strict=True):
        assert torch.equal(one.source_images, other.source_images)
        assert torch.equal(one.source_labels, other.source_labels)


def test_the_dataset_can_be_sent_to_another_process(toy_root: Path) -> None:
    """Where processes are not forked, as from Python 3.14 on, the loader sends it to them."""
    data = dataset(toy_root)
    copy = pickle.loads(pickle.dumps(data))
    assert_equal(stream(data), stream(copy))


@pytest.fixture
def small(tmp_path: Path) -> TrainingDataset:
    write_gta5(tmp_path)
    write_gta5(tmp_path, folder="CycleGTA5")
    write_cityscapes(tmp_path)
    return dataset(tmp_path)


def first_error(data: TrainingDataset, workers: int) -> str:
    with pytest.raises(InputError) as refusal:
        stream(data, workers=workers)
    message = str(refusal.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_surface_as_one_line(small: TrainingDataset, workers: int) -> None:
    root = Path(small.data.root)
    image = cityscapes_image(root, "bremen_000000_000019")
    content = image.read_bytes()
    image.write_bytes(content[:60])
    assert first_error(small, workers).startswith(f"{image} cannot be decoded (")
    image.unlink()
    assert first_error(small, workers) == f"{image} does not exist"
    image.write_bytes(content)
    labels = write_png(root / "GTA5" / "labels" / "00002.png", raw_labels(2) + 200)
    assert "label values 200, 201," in first_error(small, workers)
    write_png(labels, raw_labels(2, (8, 15)))
    assert "labels are 15x8, the image is 16x8" in first_error(small, workers)


def test_good_batches_come_before_the_bad_one(small: TrainingDataset) -> None:
    small.target[position_in_data(3, count=4, seed=0, stream=1)].image.unlink()
    found = batches(small, batch_size=1, first_step=0, steps=12, workers=0)
    assert [next(found).indices for _ in range(3)] == [(0,), (1,), (2,)]
    with pytest.raises(InputError, match="does not exist"):
        next(found)


def test_the_labels_of_the_target_are_never_read(toy_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "city"
    shutil.copytree(toy_root, copy)
    before = stream(dataset(copy))
    shutil.rmtree(copy / "Cityscapes" / "gtFine" / "train")
    assert_equal(before, stream(dataset(copy)))


def test_a_batch_moves_to_the_device_as_floats_and_train_ids(toy_root: Path) -> None:
    (batch, *_) = stream(dataset(toy_root))
    moved = batch.to_device(torch.device("cpu"))
    assert torch.equal(moved.source_images, batch.source_images.float() / 255)
    assert torch.equal(moved.source_labels, batch.source_labels.long())
    assert moved.target_images.is_contiguous(memory_format=torch.channels_last)
    assert moved.target_pseudo_labels is None
    assert (moved.indices, moved.source_names) == (batch.indices, batch.source_names)
    labeled = replace(batch, target_pseudo_labels=batch.source_labels)
    pseudo = labeled.to_device(torch.device("cpu")).target_pseudo_labels
    assert pseudo is not None
    assert torch.equal(pseudo, moved.source_labels)


def test_the_loader_can_pin_a_batch(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own pin_memory leaves objects without a method of that name where they are."""
    (batch, *_) = stream(dataset(toy_root))
    labeled = replace(batch, target_pseudo_labels=batch.source_labels)
    copies = []

    def pinned(tensor: Tensor) -> Tensor:
        copies.append(tensor.clone())
        return copies[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    for unpinned, count in ((batch, 3), (labeled, 4)):
        copies.clear()
        assert_equal([unpinned.pin_memory()], [unpinned])
        assert len(copies) == count


def test_a_second_target_view_is_the_same_picture_in_another_crop(toy_root: Path) -> None:
    data = dataset(toy_root)
    data.data.second_target_view = SecondViewConfig()
    with_second = stream(data)
    data.data.second_target_view = None
    without = stream(data)
    for both, one in zip(with_second, without, strict=True):
        second = both.target_second_images
        assert second is not None
        assert one.target_second_images is None
        assert second.shape == both.target_images.shape
        assert not torch.equal(second, both.target_images)
        for name, tensor in batch_tensors(one).items():  # nothing else is drawn otherwise
            assert torch.equal(tensor, getattr(both, name))
    data.data.crop = (48, 96)  # the whole picture: nothing is left to crop
    data.data.second_target_view = SecondViewConfig()
    for batch in stream(data):
        assert batch.target_second_images is not None
        assert torch.equal(batch.target_second_images, batch.target_images)


def test_the_picture_of_two_views_is_decoded_once(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bits of decoding what each crop needs of it."""
    data = dataset(toy_root)
    data.data.second_target_view = SecondViewConfig(policy="autoaugment")
    opened: list[Path] = []

    def counted(path: Path, **options: Any) -> Any:  # noqa: ANN401  # as they are
        opened.append(path)
        return stored_image(path, **options)

    monkeypatch.setattr("uda.data.transforms.stored_image", counted)
    once = stream(data)
    assert not [path for path in opened if "leftImg8bit" in path.parts]
    monkeypatch.setattr("uda.data.sampling.decoded_once", lambda sample: None)
    assert_equal(stream(data), once)
    assert [path for path in opened if "leftImg8bit" in path.parts]


def test_the_second_view_has_a_policy_of_its_own(toy_root: Path) -> None:
    data = dataset(toy_root)
    data.data.crop = (48, 96)
    data.data.second_target_view = SecondViewConfig(policy="autoaugment_log")
    batches = stream(data)
    changed = [not torch.equal(b.target_images, b.target_second_images) for b in batches
               if b.target_second_images is not None]  # fmt: skip
    assert len(changed) == len(batches)
    assert any(changed)


def test_a_run_without_source_has_an_empty_one(toy_root: Path) -> None:
    data = dataset(toy_root).data
    target = stream(dataset(toy_root))
    data.source = None
    opened = open_training_data(data, seed=0, evaluated="cityscapes")
    assert opened.short_name == "CITYS"
    assert opened.dataset.source == []
    for batch, before in zip(stream(opened.dataset), target, strict=True):
        assert batch.source_images.shape == (0, 3, *CROP)
        assert batch.source_labels.shape == (0, *CROP)
        assert torch.equal(batch.target_images, before.target_images)
        assert batch.source_names == ("",) * 3


def test_target_labels_come_when_they_are_asked_for(toy_root: Path) -> None:
    data = dataset(toy_root).data
    data.target_ground_truth = True
    opened = open_training_data(data, seed=0, evaluated="cityscapes")
    assert opened.supervision == "ground truth (6 images)"
    plain = stream(dataset(toy_root))
    for batch, before in zip(stream(opened.dataset), plain, strict=True):
        assert before.target_ground_truth is None
        assert batch.target_ground_truth is not None
        assert batch.target_ground_truth.shape == (3, *CROP)
        assert batch.target_pseudo_labels is None
        assert torch.equal(batch.target_images, before.target_images)


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_a_policy_changes_looks_and_nothing_else(toy_root: Path, policy: PolicyName) -> None:
    data = dataset(toy_root)
    plain = stream(data)
    assert data.data.source is not None
    data.data.source.policy = policy
    distorted = stream(data)
    assert_equal(distorted, stream(data, workers=2))
    for one, other in zip(plain, distorted, strict=True):
        assert torch.equal(one.source_labels, other.source_labels)
        assert torch.equal(one.target_images, other.target_images)
    assert any(
        not torch.equal(one.source_images, other.source_images)
        for one, other in zip(plain, distorted, strict=True)
    )


def test_domains_may_have_crops_of_their_own(toy_root: Path) -> None:
    """AdaptSegNet's, at a tenth: whole images of both domains, of two sizes."""
    data = dataset(toy_root)
    assert data.data.source is not None
    assert data.data.target is not None
    plain = stream(data)
    data.data.source.crop, data.data.source.size, data.data.source.scale = (
        (72, 128),
        (72, 128),
        (1, 1),
    )
    for batch, before in zip(stream(data), plain, strict=True):
        assert batch.source_images.shape == (3, 3, 72, 128)
        assert batch.source_labels.shape == (3, 72, 128)
        assert torch.equal(batch.target_images, before.target_images)
    data.data.target.crop = (48, 96)
    data.data.crop = (9999, 9999)  # nobody's
    data.data.check("data")
    assert stream(data)[0].target_images.shape == (3, 3, 48, 96)
    data.data.source.crop = (73, 128)
    with pytest.raises(
        InputError, match=r"^data\.source\.crop \(73, 128\) does not fit data\.source"
    ):
        data.data.check("data")


def test_borders_come_with_target_images_only(toy_root: Path) -> None:
    data = dataset(toy_root)
    plain = stream(data)
    assert data.data.target is not None
    data.data.target.ignored_borders = (0.1, 0.25, 0, 7)
    bordered = stream(data)
    assert_equal(bordered, stream(data, workers=2))
    for batch, before in zip(bordered, plain, strict=True):
        assert before.target_valid is None
        assert batch.target_valid is not None
        assert batch.target_valid.dtype == torch.bool
        assert batch.target_valid.shape == (3, *CROP)
        assert torch.equal(batch.target_images, before.target_images)
        moved = batch.to_device(torch.device("cpu")).target_valid
        assert moved is not None
        assert torch.equal(moved, batch.target_valid)
    assert {bool(b.target_valid.all()) for b in bordered if b.target_valid is not None} == {False}


def test_a_preflight_generates_what_the_loader_hands_over(toy_root: Path) -> None:
    """Also with crops of two sizes."""
    experiment = tiny_preset("toy_source_only", toy_root)
    data = dataset(toy_root)
    assert data.data.source is not None
    data.data.source.crop, data.data.source.scale = (64, 128), (1.0, 1.0)
    experiment.data, experiment.train.batch_size = data.data, 3
    loaded = stream(data)[0]
    generated = generated_batch(experiment, num_classes=19, step=0)
    for name, tensor in batch_tensors(loaded).items():
        theirs = getattr(generated, name)
        assert (tensor.shape, tensor.dtype) == (theirs.shape, theirs.dtype)


def test_too_little_shared_memory_is_an_error_and_no_endless_wait(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a loader process meets it: what it has read cannot be put there."""

    def full(_: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>:\n No space")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    with pytest.raises(InputError, match=r"\(unable to .* No space\): shared memory, .*workers=0"):
        stream(dataset(toy_root), workers=1)
