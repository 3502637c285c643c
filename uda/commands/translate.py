"""Give the images of a data set the look of another's:
%(prog)s --restore-from FILE --dataset NAME --output DIR

The folder --output then holds the translated images and links to their labels, as the data set's
own folder does; docs/translation.md says how to train on it and what to look at before.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands import choices
from uda.commands.endings import clear_errors, print_facts
from uda.commands.options import add_device, at_least, new_parser
from uda.utilities.errors import MOST_WORKERS

if TYPE_CHECKING:
    import torch

    from uda.translation.translators import Translator


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    how = parser.add_argument_group("translation")
    way = how.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--restore-from", metavar="FILE", type=Path,
        help="generator that uda train-translation or pytorch-CycleGAN-and-pix2pix wrote",
    )  # fmt: skip
    way.add_argument(
        "--method", choices=("color", "fourier"),
        help="one that needs no training. color: the target's mean and covariance of colors; "
        "fourier: its amplitudes of low frequencies",
    )  # fmt: skip
    how.add_argument(
        "--target", metavar="NAME",
        help="data set or TOML file with the look that is wanted; its training images are used, "
        "and no label of it is looked for",
    )  # fmt: skip
    how.add_argument(
        "--match", choices=choices.MATCHES, default="image",
        help="color: to the statistics of one target image, drawn for each image, or of the whole "
        "set (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--band", metavar="SHARE", type=float, default=0.01,
        help="fourier: of the shorter side (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--window", choices=choices.WINDOWS, default="asymmetric",
        help="fourier: frequencies -b to b - 1, or -b to b (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--seed", metavar="N", type=at_least(0), default=0,
        help="of which target image is drawn for which image (default: 0)",
    )  # fmt: skip
    how.add_argument(
        "--tile", metavar="ROWS", type=at_least(1),
        help="--restore-from: compute images of more rows so many rows at a time: the same "
        "pictures up to rounding, in less memory (default: as a whole)",
    )  # fmt: skip
    data = parser.add_argument_group("images")
    data.add_argument(
        "--dataset", metavar="NAME", required=True, help="data set or TOML file to translate"
    )
    data.add_argument(
        "--data-root", metavar="DIR", default="",
        help="folder of the data sets (default: the variable UDA_DATA)",
    )  # fmt: skip
    data.add_argument(
        "--splits", nargs="+", metavar="SPLIT", default=("train",), help="default: train"
    )
    data.add_argument("--first", type=at_least(1), metavar="N", help="only the first N images")
    data.add_argument(
        "--width", type=at_least(1), metavar="PIXELS",
        help="resize images to this width, their ratio kept (default: that of the network's "
        "training, or as stored)",
    )  # fmt: skip
    written = parser.add_argument_group("result")
    written.add_argument(
        "--output", metavar="DIR", type=Path, required=True,
        help="new folder, or one that the same command has begun: it is continued",
    )  # fmt: skip
    written.add_argument(
        "--format", choices=choices.PICTURE_FORMATS, default="png", help="default: png"
    )
    written.add_argument(
        "--quality", type=at_least(1), metavar="N", default=95,
        help="of JPEG, up to 100 (default: 95)",
    )  # fmt: skip
    written.add_argument(
        "--labels", choices=("link", "none"), default="link",
        help="link: links to the labels of the originals; none: these are not looked for "
        "(default: link)",
    )  # fmt: skip
    written.add_argument(
        "--workers", metavar="N", type=at_least(0, MOST_WORKERS), default=2,
        help="processes that read images; they change no byte (default: 2)",
    )  # fmt: skip
    add_device(written)
    parsed = parser.parse_args(arguments)
    if parsed.method and parsed.target is None:
        parser.error(f"--method {parsed.method} needs --target NAME, such as --target cityscapes")
    for name, reason in _unused(parsed).items():
        if getattr(parsed, name) != parser.get_default(name):
            parser.error(f"--{name} is not used {reason}: omit it")
    return parsed


def _unused(parsed: argparse.Namespace) -> dict[str, str]:
    """The options that change nothing, as the others are, with the reason."""
    of_others = {
        "color": ("band", "window", "tile"),
        "fourier": ("match", "tile"),
        None: ("target", "match", "band", "window", "seed"),
    }[parsed.method]
    by = f"with --method {parsed.method}" if parsed.method else "with --restore-from"
    found = dict.fromkeys(of_others, by)
    if parsed.method and parsed.match == "set":
        found["seed"] = "with --match set"
    if parsed.format == "png":
        found["quality"] = "with --format png"
    return found


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    from uda.data.registry import refuse_unused_root, root_of
    from uda.training.tracking import progress_bar
    from uda.translation.trained import open_generator
    from uda.translation.writing import Wanted, read_as, translate_dataset
    from uda.utilities.distributed import device_named, is_main, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        used = [*filter(None, [arguments.dataset, arguments.target])]
        refuse_unused_root(arguments.data_root, used)
        root = root_of(arguments.data_root, used)
        translator: Translator
        if arguments.method:
            translator, trained_width = _untrained(arguments, root, device), None
        else:
            translator = generator = open_generator(
                arguments.restore_from, device, tile=arguments.tile
            )
            trained_width = generator.width
        wanted = Wanted(
            dataset=arguments.dataset,
            splits=tuple(dict.fromkeys(arguments.splits)),
            first=arguments.first,
            width=arguments.width or trained_width,
            labels=arguments.labels == "link",
            picture_format=arguments.format,
            quality=arguments.quality,
        )
        wanted.check()
        result = translate_dataset(
            translator,
            wanted,
            arguments.output,
            root=root,
            device=device,
            workers=arguments.workers,
            progress=partial(progress_bar, description="translate"),
        )
        facts = {"folder": arguments.output, "images": result.manifest.image_count}
        print_facts({"translation": result.manifest.line} | facts)
        folder = read_as(arguments.dataset).folder
        if is_main() and result.kept:
            print(f"{result.kept} images were there already")
        if is_main() and arguments.output.name != Path(folder).name:
            print(
                f"note: presets read it where it is called {folder}, next to the other data sets "
                "below the data root"
            )


def _untrained(arguments: argparse.Namespace, root: Path, device: "torch.device") -> "Translator":
    from uda.data.registry import list_dataset
    from uda.training.tracking import progress_bar
    from uda.translation.amplitudes import AmplitudeTranslator
    from uda.translation.color_statistics import ColorTranslator, color_statistics
    from uda.translation.originals import images_of
    from uda.translation.translators import Partners

    target = list_dataset(root, arguments.target, "train", labeled=False)
    if arguments.method == "color" and arguments.match == "set":
        images = images_of(target, arguments.width, device=device, workers=arguments.workers)
        shown = progress_bar(images, total=len(target), description="colors")
        return ColorTranslator(statistics=color_statistics(shown), target=arguments.target)
    partners = Partners(target, seed=arguments.seed)
    if arguments.method == "color":
        return ColorTranslator(partners=partners)
    return AmplitudeTranslator(partners, band=arguments.band, window=arguments.window)
