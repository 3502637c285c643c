"""The chart of the ladder: what each method reaches over the seeds, and on which classes."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from PIL import Image

from ladder_rungs import SOURCE_ONLY
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, DPI = 16, 100  # inches, pixels per inch
ROW, REST = 0.32, 1.75  # inches of height: a method, all but the methods
COLORS = {"none": "#0072b2", "pseudo": "#d55e00", "ground truth": "#009e73"}
GRAY, BAND = "0.45", "0.9"


def check_matplotlib() -> None:
    """Raises InputError when matplotlib cannot be imported; to be asked before the hour of runs."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise InputError(
            f"the chart needs matplotlib, which cannot be imported ({error}): "
            "pip install 'uda[plots]', or make install"
        ) from None


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes a PNG of 1600 pixels width: mIoU of every seed, next to the mean IoU of every class.

    found: method -> its figures as in toy_ladder.json, drawn from top to bottom. The same figures
    make the same bytes. Raises InputError when matplotlib cannot be imported.
    """
    check_matplotlib()
    from matplotlib import style
    from matplotlib.figure import Figure

    # Whatever the user's own matplotlibrc says.
    with style.context(["default", {"figure.constrained_layout.w_pad": 0.1}]):
        figure = Figure((WIDTH, REST + ROW * len(found)), dpi=DPI, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.35))
        _draw_seeds(left, found)
        _draw_classes(right, list(found.values()))
        left.set_ylim(len(found) - 0.5, -0.5)
        figure.legend(handles=_legend(), loc="outside lower left", ncols=7, frameon=False)
        picture = BytesIO()
        figure.savefig(picture, format="png")
    # 256 colors, and nothing on who has drawn it: a third of the size, and the same bytes again.
    few = Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    with replacing(path) as file:
        few.save(file, "PNG", optimize=True)


def supervision_of(values: Mapping[str, Any]) -> str:
    """What labels of the target a method has seen, even by way of its initial weights: none,
    pseudo or ground truth."""
    seen = str(values["supervision"])
    return next((kind for kind in ("ground truth", "pseudo") if kind in seen), "none")


def _draw_seeds(axes: "Axes", found: Mapping[str, Mapping[str, Any]]) -> None:
    """A bar to the mean, a line over the range, a dot for each seed; mean and minutes as text."""
    beside = axes.get_yaxis_transform()  # x in widths of the panel, y in rows
    for points, header in ((40, "mean"), (94, "minutes")):
        axes.annotate(header, (1, 1), xytext=(points, 5), xycoords="axes fraction",
                      textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    for row, values in enumerate(found.values()):
        miou, color = values["miou"], COLORS[supervision_of(values)]
        if values["mistake"]:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        axes.barh(row, mean(miou), height=0.62, color=color, alpha=0.3, zorder=1)
        axes.vlines(mean(miou), row - 0.31, row + 0.31, color=color, linewidth=2.5, zorder=3)
        axes.hlines(row, min(miou), max(miou), color=color, linewidth=1.5, zorder=3)
        # One below the other, so that seeds which agree do not hide each other.
        heights = [row + 0.4 * ((i + 0.5) / len(miou) - 0.5) for i in range(len(miou))]
        axes.plot(miou, heights, "o", color=color, markersize=5, markeredgecolor="white",
                  markeredgewidth=0.6, zorder=4)  # fmt: skip
        for points, number in ((40, mean(miou)), (94, values["minutes"])):
            axes.annotate(f"{number:.1f}", (1, row), xytext=(points, 0), xycoords=beside,
                          textcoords="offset points", ha="right", va="center")  # fmt: skip
    if SOURCE_ONLY in found:
        axes.axvline(mean(found[SOURCE_ONLY]["miou"]), color="black", linewidth=1, linestyle="--",
                     zorder=2)  # fmt: skip
    axes.set_yticks(range(len(found)), [
        f"{title} - mistake" if values["mistake"] else title for title, values in found.items()
    ])  # fmt: skip
    for label, values in zip(axes.get_yticklabels(), found.values(), strict=True):
        label.set_color(GRAY if values["mistake"] else "black")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="0.85", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("mIoU in percent, each dot one seed")


def _draw_classes(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """A cell for each method and class: its IoU, the mean over the seeds."""
    names = list(rows[0]["per_class"])
    iou = [[mean(values["per_class"][name]) for name in names] for values in rows]
    axes.imshow(iou, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, line in enumerate(iou):
        for column, value in enumerate(line):
            color = "white" if value > 55 else "black"
            axes.text(column, row, f"{value:.0f}", color=color, ha="center", va="center", size=9)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="left", rotation_mode="anchor")
    axes.tick_params(axis="x", top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("IoU of each class in percent, mean over the seeds")


def _legend() -> list[Any]:
    """What the colors, the line and the gray rows mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seen = {"none": "no target labels", "pseudo": "pseudo-labels",
            "ground truth": "ground truth of the target"}  # fmt: skip
    return [
        *(Patch(color=color, label=seen[kind]) for kind, color in COLORS.items()),
        Patch(color=BAND, label="a mistake of the experiment log, repeated"),
        Line2D([], [], color="black", linewidth=1, linestyle="--", label=f"mean of {SOURCE_ONLY}"),
    ]
