"""Zips for the test servers of ACDC and Dark Zurich, from images as they are downloaded."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factories import Bytes, tiny_snapshot, write_png
from tiny_runs import CPU, tiny_preset
from uda.checkpoints.snapshots import save, snapshot_values
from uda.commands import evaluate
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import predictions
from uda.labels.spaces import CITYSCAPES
from uda.prediction.opened import open_network
from uda.prediction.train_id_servers import SERVERS, TrainIdZip
from uda.utilities.errors import InputError

SIZE = (27, 48)
IMAGES = {
    "acdc": (
        "ACDC/rgb_anon/fog/test/GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
        "ACDC/rgb_anon/night/test/GP010376/GP010376_frame_000001_rgb_anon.png",
    ),
    "dark_zurich": (
        "DarkZurich/rgb_anon/test/night/GOPR0364/GOPR0364_frame_000001_rgb_anon.png",
        "DarkZurich/rgb_anon/test/night/GOPR0364_2/GOPR0364_frame_000936_rgb_anon.png",
    ),
}
FOLDERS = {
    "acdc": ["labelTrainIds"],
    "dark_zurich": ["labelTrainIds", "confidence", "labelTrainIds_invalid"],
}


@pytest.mark.parametrize("server", IMAGES)
def test_predictions_arrive_under_the_names_of_their_images(
    server: str, tmp_path: Path, toy_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in IMAGES[server]:
        write_png(tmp_path / name, rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.evaluation.input_size = None
    path = tmp_path / "GTA5_7.pth"
    save(snapshot_values(tiny_snapshot(experiment)), path)
    options = ["--restore-from", str(path), "--dataset", server, "--split", "test", "--data-root",
               str(tmp_path), "--device", "cpu", "--workers", "0", "--export", server]  # fmt: skip
    evaluate.main(options)
    target = tmp_path / f"GTA5_7_test_{server}.zip"
    shown = capsys.readouterr().out
    assert f"export: 2 train-id PNGs in {', '.join(FOLDERS[server])} for" in shown
    assert (
        f"the server expects {SERVERS[server].images} of 1920x1080, these are 2 of 48x27" in shown
    )
    expected = [f"{folder}/{Path(name).name}" for name in IMAGES[server]
                for folder in FOLDERS[server]]  # fmt: skip
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == sorted(expected)
        found = {name: read(archive, name) for name in expected}

    opened = open_network(path, device=CPU, data_root=str(tmp_path), dataset=server)
    samples = list_dataset(tmp_path, server, "test", labeled=False)
    for views, prediction in predictions(
        opened.segmenter, samples, config=opened.config, label_space=CITYSCAPES, workers=0,
        confidence=True,
    ):  # fmt: skip
        labels = found[f"labelTrainIds/{views.stem}_rgb_anon.png"]
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, prediction.labels.to(torch.uint8).numpy())
        if server == "dark_zurich":
            assert prediction.confidence is not None
            sure = found[f"confidence/{views.stem}_rgb_anon.png"]
            assert np.abs(sure / 65535 - prediction.confidence.numpy()).max() < 1e-5
            assert sure.max() > 255, "of 16 bits"
            invalid = found[f"labelTrainIds_invalid/{views.stem}_rgb_anon.png"]
            assert np.array_equal(invalid, labels)


def read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(archive.read(name))) as picture:
        return np.asarray(picture)


def labels(value: int = 3) -> Bytes:
    return np.full(SIZE, value, np.uint8)


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    server, path = SERVERS["acdc"], tmp_path / "a.zip"
    with pytest.raises(InputError, match="a_1 is not an image name of ACDC, such as GOPR0364_fr"):
        TrainIdZip(path, server, stems=["a_1"], size=SIZE)
    stems = ["GOPR0364_frame_000001", "GOPR0364_frame_000002"]
    with pytest.raises(InputError, match="2 images are called GOPR0364_frame_000001"):
        TrainIdZip(path, server, stems=stems[:1] * 2, size=SIZE)
    with TrainIdZip(path, server, stems=stems, size=SIZE) as export:
        export.write(stems[0], labels())
        with pytest.raises(InputError, match=r"the value 19, which is not a train id"):
            export.write(stems[1], labels(19))
        with pytest.raises(InputError, match=r"000002_rgb_anon\.png.*is missing, as are 0 more"):
            export.finish()
    assert list(tmp_path.iterdir()) == []
