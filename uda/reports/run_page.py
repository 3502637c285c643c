"""The page of one run: what was run, how it went, how it scored, and what its network sees."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uda.reports.charts import Chart, Series, line_charts, sparkline
from uda.reports.looking import BINS, Looked
from uda.reports.page import write_page
from uda.reports.run_files import FoundRun
from uda.reports.run_log import RunLog, per_class, read_log
from uda.utilities.errors import shown

_MATRIX = 64  # classes up to which the whole matrix is shown
_LEAKS = 3  # classes that a row names
_WARNINGS = 200


def run_page(
    found: FoundRun,
    path: Path,
    *,
    looked: Looked | None = None,
    against: str = "",
    how_to_look: str,
) -> Path:
    """Writes the page of a run to `path`; the path.

    `looked`: images that its network has seen, and maybe another one, called `against`;
    `how_to_look`: the command that adds them. Raises WriteError when it cannot be written.
    """
    log = read_log(found.folder)
    run = found.run
    names = list(run.per_class)
    values: dict[str, Any] = {
        "run": run,
        "facts": list(_facts(found, log)),
        "experiment": json.dumps(found.experiment, indent=2, default=shown),
        "classes": _classes(found, log),
        "sections": list(_sections(log)),
        "shares": _shares(log, names),
        "warnings": log.warnings[:_WARNINGS],
        "more_warnings": max(0, len(log.warnings) - _WARNINGS),
        "damaged": log.damaged,
        "looked": looked,
        "against": against,
        "how_to_look": how_to_look,
    }
    if looked is not None:
        values |= _of_images(looked)
    return write_page(path, "run.html", values)


def _facts(found: FoundRun, log: RunLog) -> Iterator[tuple[str, str]]:
    run = found.run
    yield from run.facts.items()
    yield "protocol", run.protocol
    if found.snapshot is not None:
        yield "snapshot", found.snapshot.name
    for domain in ("source", "target"):
        data = found.experiment.get("data", {}).get(domain)
        if isinstance(data, dict):
            yield domain, ", ".join(map(str, data.get("datasets", ())))
    objectives = found.experiment.get("objectives")
    if isinstance(objectives, dict):
        yield "objectives", ", ".join(map(str, objectives))
    yield "evaluated", f"{log.evaluations} times, last recorded step {log.last_step}"


def _classes(found: FoundRun, log: RunLog) -> list[dict[str, Any]]:
    """A row for mIoU and each class: IoU, the published one, and its course."""
    run, space = found.run, found.label_space
    theirs = {} if run.published is None else dict(run.published.per_class or {})
    colors = {} if space is None else dict(zip(space.report_names, space.palette, strict=True))
    rows = []
    miou: Series | None = log.series.get("miou")
    entries = [("mIoU", run.miou, None if run.published is None else run.published.miou, miou)]
    courses = dict(per_class(log, "iou", run.per_class))
    entries += [(n, iou, theirs.get(n), courses.get(n)) for n, iou in run.per_class.items()]
    for name, ours, published, course in entries:
        difference = None if ours is None or published is None else ours - published
        rows.append(
            {
                "name": name,
                "color": colors.get(name),
                "iou": ours,
                "published": published,
                "difference": difference,
                "course": sparkline(course) if course else None,
            }
        )
    return rows


def _sections(log: RunLog) -> Iterator[tuple[str, list[Chart]]]:
    """The charts by heading; every number in the log is in one of them or in a table."""
    marks = sorted({step for step, _, _ in log.warnings})
    known = {name: line for name, line in log.series.items() if name == "miou"}
    of_scores = known | log.below("set/", "measure/")
    yield "Scores", line_charts("mIoU and other scores, as fractions", of_scores)
    yield "Losses", line_charts("losses", log.below("loss/"), marks=marks)
    rates = {"learning rate": "lr", "images per second": "images_per_second"}
    plateau = {f"plateau: {name}": line for name, line in log.below("plateau/").items()}
    of_rates = {said: log.series[name] for said, name in rates.items() if name in log.series}
    yield (
        "Rates",
        [c for n, line in (of_rates | plateau).items() for c in line_charts(n, {n: line})],
    )
    label_free = log.below("label_free/")
    yield (
        "Criteria without labels",
        [
            chart
            for name, line in label_free.items()
            for chart in line_charts(name.replace("_", " "), {name.replace("_", " "): line})
        ],
    )
    kept = {n: line for n, line in log.below("kept/").items() if "/" not in n}
    shares: dict[str, Series] = {
        n: log.series[n] for n in ("agreement", "histogram_distance") if n in log.series
    }
    shares |= {f"kept by {name}": line for name, line in kept.items()}
    vanished = {n: log.series[n] for n in ("vanished_classes",) if n in log.series}
    yield (
        "Monitors",
        [
            *line_charts("shares of pixels", shares, marks=marks),
            *line_charts("classes that have vanished", vanished, marks=marks),
            *line_charts("accuracy of discriminators", log.below("discriminator/"), marks=marks),
        ],
    )
    mine = ("set/", "measure/", "loss/", "plateau/", "label_free/", "kept/", "discriminator/",
            "iou/", "source/", "predicted/")  # fmt: skip
    single = {"miou", "lr", "images_per_second", "agreement", "histogram_distance",
              "vanished_classes", "skipped"}  # fmt: skip
    others = {n: v for n, v in log.series.items() if n not in single and not n.startswith(mine)}
    yield "Other figures", [c for n, line in others.items() for c in line_charts(n, {n: line})]


def _shares(log: RunLog, names: list[str]) -> list[dict[str, Any]]:
    """A row for each class: its share of the source's labels and of the predictions, and how much
    of it objectives learn from; the last recorded ones, and the course of the predictions."""
    predicted, source = (dict(per_class(log, p, names)) for p in ("predicted", "source"))
    objectives = [name for name in log.below("kept/") if "/" not in name]
    kept = {name: dict(per_class(log, f"kept/{name}", names)) for name in objectives}
    rows = []
    for name, line in predicted.items():
        highest = max(value for _, value in line)
        rows.append(
            {
                "name": name,
                "source": _mean_of_last(source.get(name)),
                "predicted": _mean_of_last(line),
                "kept": {o: _mean_of_last(of_class.get(name)) for o, of_class in kept.items()},
                "course": sparkline(line, highest=highest or 1.0),
            }
        )
    return rows


def _mean_of_last(line: Series | None) -> float | None:
    """The mean of the last ten records, as monitors look at them."""
    last = [value for _, value in line[-10:]] if line else []
    return sum(last) / len(last) if last else None


# --- what was seen of images


def _of_images(looked: Looked) -> dict[str, Any]:
    counts = np.sum(looked.counts, axis=0)
    space = looked.space
    classes = list(zip(space.report_names, space.palette, strict=True))
    order = sorted(looked.pictures, key=lambda p: (p["miou"] is None, p["miou"], p["image"]))
    return {
        "leaks": _leaks(counts, space.report_names),
        "matrix": _matrix(counts, space.report_names) if len(classes) <= _MATRIX else None,
        "reliability": _reliability(looked.confidence),
        "reliability_chart": _reliability_chart(looked.confidence),
        "pictures": order,
        "palette": classes,
    }


def _leaks(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The classes that labels have, those first whose pixels are most often predicted as others."""
    rows = []
    for place, row in enumerate(counts):
        total = int(row.sum())
        if not total:
            continue
        wrong = total - int(row[place])
        others = [int(i) for i in np.argsort(-row, kind="stable") if i != place and row[i]]
        rows.append(
            {
                "place": place,
                "name": names[place],
                "pixels": total,
                "leaked": wrong / total,
                "into": [(names[i], int(row[i]) / total) for i in others[:_LEAKS]],
            }
        )
    return sorted(rows, key=lambda row: -row["leaked"])


def _matrix(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    """The rows of the matrix as shares of the labeled pixels, in the order of `_leaks`."""
    order = [row["place"] for row in _leaks(counts, names)]
    rows = [(names[i], (counts[i] / counts[i].sum()).tolist(), i) for i in order]
    return {"names": names, "rows": rows}


def _reliability(bins: npt.NDArray[np.float64]) -> dict[str, Any]:
    """A row for each bin of confidence that has pixels, and the expected calibration error: the
    mean difference between confidence and accuracy (Guo et al., ICML 2017, arXiv 1706.04599)."""
    total = float(bins[:, 0].sum())
    rows = [
        {
            "range": f"{place / BINS:.2f} to {(place + 1) / BINS:.2f}",
            "pixels": pixels / total,
            "confidence": confidence / pixels,
            "accuracy": right / pixels,
        }
        for place, (pixels, confidence, right) in enumerate(bins.tolist())
        if pixels
    ]
    error = sum(row["pixels"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
    return {"rows": rows, "error": error}


def _reliability_chart(bins: npt.NDArray[np.float64]) -> list[Chart]:
    """Accuracy over mean confidence, next to the line on which both are equal."""
    points = [(c / n, right / n) for n, c, right in bins.tolist() if n]
    if len(points) < 2:
        return []
    ideal = [(points[0][0], points[0][0]), (points[-1][0], points[-1][0])]
    return line_charts("accuracy over confidence", {"network": points, "if both were equal": ideal})
