"""Source images, their translations and target images side by side, to be looked at:

    python scripts/translation_sheet.py docs/translation.jpg data/toy_city colors=DIR CUT=DIR

The first folder is a data root with GTA5 and Cityscapes; each DIR is one with a CycleGTA5 that
`uda translate` wrote. A row is one image; target images are others, as nothing is paired.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from uda.commands.endings import clear_errors
from uda.data.files import read_image
from uda.data.registry import list_dataset
from uda.data.samples import evenly_spaced
from uda.utilities.atomic_files import replacing

ROWS = 6
WIDTH = 256  # pixels of a picture
_MARGIN, _TITLE = 4, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("translations", nargs="+", metavar="TITLE=DIR")
    arguments = parser.parse_args()
    columns = {"source": (arguments.root, "gta5")}
    for given in arguments.translations:
        title, _, folder = given.partition("=")
        columns[title] = (Path(folder), "cyclegta5")
    columns["target"] = (arguments.root, "cityscapes")
    pictures = {
        title: [
            read_image(sample.image)
            for sample in evenly_spaced(list_dataset(root, name, "train", labeled=False), ROWS)
        ]
        for title, (root, name) in columns.items()
    }
    first = pictures["source"][0]
    height = round(WIDTH * first.height / first.width)
    sheet = Image.new(
        "RGB",
        (len(columns) * (WIDTH + _MARGIN), _TITLE + ROWS * (height + _MARGIN)),
        (255, 255, 255),
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, (title, images) in enumerate(pictures.items()):
        left = column * (WIDTH + _MARGIN)
        pen.text((left + WIDTH / 2, _TITLE / 2), title, (0, 0, 0), font=font, anchor="mm")
        for row, image in enumerate(images):
            shown = image.resize((WIDTH, height), Image.Resampling.BICUBIC)
            sheet.paste(shown, (left, _TITLE + row * (height + _MARGIN)))
    kind = "JPEG" if arguments.output.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with replacing(arguments.output) as file:
        sheet.save(file, kind, optimize=True, quality=85)


if __name__ == "__main__":
    with clear_errors():
        main()
