"""The report of an adaptation: what was done to a network, and whether it is better for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uda.reports.adaptation_file import (
    Adaptation,
    PictureFiles,
    Stage,
    read_adaptation,
)
from uda.reports.page import write_page
from uda.reports.pictures import PictureBudget
from uda.utilities.errors import InputError

_MOST = 500  # pictures of a page; three files each
_NAMED = 20  # unreadable images that are named


def adapt_report(folder: Path) -> Path:
    """Writes report.html into the output folder of an adaptation, from its adapt.json and the
    pictures that this names; its path.

    Raises InputError when adapt.json cannot be used, and WriteError when the page cannot be
    written. A picture that cannot be read is left out, and the page says so.
    """
    found = read_adaptation(folder)
    pictures, left_out = _pictures(folder, found["pictures"])
    images = found["images"]
    values = {
        "found": found,
        "network": _network(folder, found),
        "unreadable": list(images["unreadable"].items())[:_NAMED],
        "stages": [stage | {"rows": list(_criteria(found, stage))} for stage in found["stages"]],
        "shares": _shares(found),
        "largest": max([*found["shares"]["old"], *found["shares"]["new"], 1e-9]),
        "scores": _scores(found),
        "pictures": pictures,
        "left_out": left_out,
        "facts": list(_facts(found)),
    }
    return write_page(folder / "report.html", "adaptation.html", values)


def _network(folder: Path, found: Adaptation) -> str | None:
    """The file of the adapted network: that of the whole, or of the last stage that was kept."""
    if (folder / "adapted.pth").is_file():
        return "adapted.pth"
    kept = [stage["snapshot"] for stage in found["stages"] if stage["kept"]]
    return kept[-1] if kept else None


def _facts(found: Adaptation) -> Iterator[tuple[str, str]]:
    network, images, settings = found["network"], found["images"], found["settings"]
    sizes = sorted(images["sizes"].items(), key=lambda item: (-item[1], item[0]))
    yield "network", f"{network['title']}, {len(network['classes'])} classes"
    yield "its file", network["file"]
    yield "sha256", network["sha256"]
    yield "what it has seen of labels", network["supervision"]
    yield "images", f"{images['count']} in {images['folder']}"
    if sizes:
        shown = ", ".join(f"{size} ({count})" for size, count in sizes[:6])
        yield "sizes", shown + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")
    if images["unreadable"]:
        yield "not readable", f"{len(images['unreadable'])}, left out"
    yield "compared on", f"{images['looked_at']} images, without labels"
    yield "methods", ", ".join(settings["methods"])
    yield "minutes allowed", "-" if settings["minutes"] is None else f"{settings['minutes']:g}"
    yield "source images", settings["source"] or "none: only the network and the images were used"
    yield "seed", str(settings["seed"])


def _criteria(found: Adaptation, stage: Stage) -> Iterator[dict[str, Any]]:
    """A row for each criterion: its values, and whether the change is for the better."""
    for name in dict.fromkeys([*stage["before"], *stage["after"]]):
        known = found["criteria"].get(name)
        before, after = stage["before"].get(name), stage["after"].get(name)
        change = None if before is None or after is None else after - before
        better = None if not change or known is None else (change > 0) == known["highest"]
        yield {
            "title": name if known is None else known["title"],
            "about": "" if known is None else known["about"],
            "highest": None if known is None else known["highest"],
            "before": before,
            "after": after,
            "change": change,
            "better": better,
        }


def _shares(found: Adaptation) -> list[dict[str, Any]]:
    """A row for each class: what share of the pixels has it, before and after."""
    network, shares = found["network"], found["shares"]
    columns = network["classes"], network["palette"], shares["old"], shares["new"]
    return [
        {"name": name, "color": color, "old": old, "new": new}
        for name, color, old, new in zip(*columns, strict=True)
    ]


def _scores(found: Adaptation) -> dict[str, Any] | None:
    scores = found["scores"]
    if scores is None:
        return None
    old, new = scores["old"], scores["new"]

    def row(name: str, before: float | None, after: float | None) -> dict[str, Any]:
        change = None if before is None or after is None else after - before
        return {"name": name, "old": before, "new": after, "change": change}

    names = dict.fromkeys([*old["ious"], *new["ious"]])
    rows = [row(name, old["ious"].get(name), new["ious"].get(name)) for name in names]
    return {
        "dataset": scores["dataset"],
        "protocol": scores["protocol"],
        "rows": [row("mIoU", old["miou"], new["miou"]), *rows],
    }


def _pictures(folder: Path, given: list[PictureFiles]) -> tuple[list[dict[str, Any]], list[str]]:
    """The pictures for the page, most changed first, and what has to be said of those left out."""
    chosen = sorted(given, key=lambda picture: (-picture["changed"], picture["image"]))[:_MOST]
    budget = PictureBudget(3 * len(chosen))
    shown: list[dict[str, Any]] = []
    said: list[str] = []
    full = len(given) - len(chosen)
    for picture in chosen:
        try:
            files = {
                name: budget.of_file(folder / picture[name])
                for name in ("photo", "before", "after")
            }
        except InputError as error:
            said.append(str(error))
            continue
        if None in files.values():
            full += 1
            continue
        shown.append({"image": picture["image"], "changed": picture["changed"]} | files)
    if full:
        said.append(f"{full} more changed less and are only in the folder")
    return shown, said
