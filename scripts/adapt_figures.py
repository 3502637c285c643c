"""The figures of docs/adapt.md: uda adapt on the toy city and on real photographs.

    python scripts/adapt_figures.py toy --seed 0
    python scripts/adapt_figures.py clothes --data DIR --seed 0

`toy`: the network of `toy_source_only`, trained with the seed, and the unlabeled images of the
target. `clothes`: Clothing Co-Parsing, DIR (with `photos` and `labels`), in eight groups of
classes. A network is trained on one half of the photographs as another camera would have taken
them: warmer (red times 1.15, blue times 0.7), darker (gamma 1.5), blurred (a Gaussian of 1.2
pixels) and closer (the middle 75 %). It is adapted to 400 of the other half as they are, and scored
on the remaining 102. Results go to snapshots/adapt_figures/; the last lines are the figures.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from uda.commands import adapt
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment
from uda.experiments.toy_city import TOY_ROOT, toy_source_only
from uda.training.loop import train
from uda.utilities.atomic_files import replacing, write_text_whole

FOLDER = Path("snapshots/adapt_figures")
SIZE = (192, 288)  # width and height of the photographs of clothes
STEPS = 1000  # of the network trained on them
_GROUPS = {
    "background": "null",
    "skin": "skin",
    "hair": "hair",
    "dress": "dress romper jumper bodysuit suit swimwear",
    "lower": "jeans leggings panties pants shorts skirt stockings tights socks",
    "shoes": "boots clogs flats heels loafers pumps sandals shoes sneakers wedges",
    "accessory": "accessories bag belt bracelet earrings glasses gloves hat necklace purse ring "
    "scarf sunglasses tie wallet watch",
    "upper": "",  # all others
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("toy", "clothes"))
    parser.add_argument("--data", type=Path, help="folder of Clothing Co-Parsing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", nargs="+", default=["auto"])
    parser.add_argument("--minutes", default="15")
    arguments = parser.parse_args()
    seed = arguments.seed
    if arguments.what == "toy":
        experiment, images = toy_source_only(), Path(TOY_ROOT) / "Cityscapes/leftImg8bit/train"
        scored, name = "cityscapes", f"toy_{seed}"
    else:
        if arguments.data is None:
            parser.error("clothes needs --data DIR, the folder of Clothing Co-Parsing")
        data = FOLDER / "clothes"
        if not data.is_dir():
            prepare(arguments.data, data)
        experiment, images = on_clothes(data), data / "plain/images"
        scored, name = str(data / "scored.toml"), f"clothes_{seed}"
    experiment.train.seed = seed
    trained = FOLDER / f"{name}_source"
    if not list(trained.glob(f"*_{experiment.train.steps}.pth")):
        train(experiment, trained, preset=name, device=torch.device("cpu"))
    (snapshot,) = trained.glob(f"*_{experiment.train.steps}.pth")
    root = ["--data-root", TOY_ROOT] if arguments.what == "toy" else []
    adapt.main(
        ["--restore-from", str(snapshot), "--images", str(images), "--seed", str(seed),
         "--minutes", arguments.minutes, "--validate", scored, *root, "--workers", "0",
         "--output", str(FOLDER / f"{name}_{'_'.join(arguments.method)}"),
         "--method", *arguments.method]
    )  # fmt: skip


def prepare(data: Path, output: Path) -> None:
    """Writes the two halves of the photographs: `changed` to train on, `plain` to adapt to, and
    `scored`; and the TOML files that describe them."""
    classes = (data / "classes.txt").read_text().split()
    groups = {name: group for group, names in _GROUPS.items() for name in names.split()}
    order = list(_GROUPS)
    table = np.array([order.index(groups.get(name, "upper")) for name in classes], np.uint8)
    names = sorted(path.stem for path in (data / "photos").glob("*.jpg"))
    for number, name in enumerate(names):
        photo = Image.open(data / "photos" / f"{name}.jpg").convert("RGB")
        labels = Image.fromarray(table[np.asarray(Image.open(data / "labels" / f"{name}.png"))])
        part = "changed" if number < len(names) // 2 else "plain" if number % 5 else "scored"
        if part == "changed":
            photo, labels = closer(photo), closer(labels)
        photo = photo.resize(SIZE, Image.Resampling.BICUBIC)
        labels = labels.resize(SIZE, Image.Resampling.NEAREST)
        for kind, picture in (("images", photo if part != "changed" else other_camera(photo)),
                              ("labels", labels)):  # fmt: skip
            path = output / part / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                picture.save(file, "PNG")
    listed = "".join(f'[[classes]]\nname = "{name}"\nvalue = {i}\n' for i, name in enumerate(order))
    for part, split in (("changed", "train"), ("scored", "val")):
        domain = 'domain = "source"\n' if part == "changed" else ""
        write_text_whole(
            output / f"{part}.toml",
            f'root = "{part}"\nimages = "images/{{name}}.png"\nlabels = "labels/{{name}}.png"\n'
            f'splits = ["{split}"]\n{domain}{listed}',
        )


def closer(picture: Image.Image) -> Image.Image:
    """The middle 75 % of each side."""
    width, height = picture.size
    return picture.crop((width // 8, height // 8, width - width // 8, height - height // 8))


def other_camera(photo: Image.Image) -> Image.Image:
    """Blurred, darker and warmer; see this file's description."""
    values = np.asarray(photo.filter(ImageFilter.GaussianBlur(1.2)), np.float64) / 255
    values = values**1.5 * (1.15, 1.0, 0.7)
    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))


def on_clothes(data: Path) -> Experiment:
    """The small network of the toy city on the changed half."""
    experiment = toy_source_only()
    size = (SIZE[1], SIZE[0])
    source = DomainConfig(datasets=(str(data / "changed.toml"),), size=size, mirror=True)
    experiment.data = DataConfig(source=source, crop=size, workers=0)
    experiment.train.steps = STEPS
    experiment.train.snapshot_every = STEPS
    experiment.evaluation = EvaluationConfig(
        dataset=str(data / "scored.toml"), split="val", every=STEPS
    )
    return experiment


if __name__ == "__main__":
    main()
