"""What the check found, for people and for programs."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from uda.data.doctor.check import Report
from uda.data.doctor.contents import ContentSummary, written
from uda.data.doctor.findings import listed
from uda.data.doctor.listing import Listing

_SIZES_SHOWN = 3


def format_report(report: Report) -> str:
    """Tables of the sets and of their classes, every finding with its fix, a summary."""
    parts = [_table(_set_rows(report)), _class_table(report), _findings(report), _summary(report)]
    return "\n\n".join(part for part in parts if part)


def format_json(report: Report) -> str:
    """The same as JSON, with every file of every finding."""
    sets = []
    for listing, summary in report.sets:
        names = listing.wish.layout.label_space.classes
        sets.append({
            "name": listing.wish.name,
            "images": listing.images,
            "known": list(listing.known.counts) if listing.known else None,
            "checked": len(listing.samples),
            "label_files": summary.label_files,
            "sizes": {written(size): count for size, count in summary.sizes.most_common()},
            "pixels": dict(zip(names, summary.pixels.tolist(), strict=True)),
            "images_with_class": dict(zip(names, summary.showing.tolist(), strict=True)),
            "expected_shares": dict(zip(names, listing.wish.layout.class_shares, strict=False)),
        })  # fmt: skip
    content = {
        "root": str(report.root),
        "problems": report.problems,
        "sets": sets,
        "pseudo_labels": {str(own.folder): len(own.files) for own in report.pseudo_labels},
        "findings": [_plain(asdict(f), len(f.items)) for f in report.findings],
        "files": report.files,
        "files_read": report.files_read,
        "images_decoded": not report.header_only,
        "seconds": round(report.seconds, 2),
    }
    return json.dumps(content, indent=1)


def _plain(finding: dict[str, Any], count: int) -> dict[str, Any]:
    items = [{"name": name, "remark": remark} for name, remark in finding["items"]]
    return finding | {"count": count, "items": items}


def _set_rows(report: Report) -> list[list[str]]:
    rows = [["set", "images", "known", "checked", "label files", "sizes"]]
    for listing, summary in report.sets:
        known = " or ".join(map(str, listing.known.counts)) if listing.known else "-"
        counts = [str(listing.images), known, str(len(listing.samples)), str(summary.label_files)]
        rows.append([listing.wish.name, *counts, _sizes(summary.sizes)])
    for own in report.pseudo_labels:
        rows.append([own.name, "-", "-", "-", str(len(own.files)), "-"])
    return rows


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    shown = ", ".join(written(size) for size, _ in sizes.most_common(_SIZES_SHOWN))
    more = len(sizes) - _SIZES_SHOWN
    return (shown + (f" and {more} more" if more > 0 else "")) or "-"


def _class_table(report: Report) -> str:
    """The share of each class in percent, in how many label files it is, and the expected share
    where there is one; a table for each list of classes."""
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for listing, summary in report.sets:
        if summary.pixels.any():
            names = listing.wish.layout.label_space.report_names
            columns = tables.setdefault(names, [["% of pixels", *names]])
            columns += _class_columns(listing, summary)
    return "\n\n".join(
        _table([list(row) for row in zip(*columns, strict=True)]) for columns in tables.values()
    )


def _class_columns(listing: Listing, summary: ContentSummary) -> list[list[str]]:
    shares = 100 * summary.pixels / summary.pixels.sum()
    columns = [
        [listing.wish.name, *(f"{share:.3g}" for share in shares)],
        ["images", *map(str, summary.showing)],
    ]
    if listing.known is not None and listing.wish.layout.class_shares:
        columns.append(["about", *(f"{100 * s:.2g}" for s in listing.wish.layout.class_shares)])
    return columns


def _findings(report: Report) -> str:
    lines = []
    for found in report.findings:
        lines.append(f"{found.severity}: {found.where}: {found.text}")
        if found.items:
            lines.append(f"  {listed(found.items)}")
        lines.append(f"  fix: {found.fix}")
    return "\n".join(lines)


def _summary(report: Report) -> str:
    rows = [["severity", "kind", "set", "files"]]
    for found in report.findings:
        rows.append([found.severity, found.kind, found.where, str(len(found.items) or "-")])
    table = _table(rows) + "\n\n" if report.findings else ""
    known = report.files - report.files_read
    looked = f"{report.files} files, {known} of them unchanged since the last check"
    how = "; images by their headers only" if report.header_only else ""
    notes = len(report.findings) - report.problems
    return f"{table}{report.problems} problems, {notes} notes; {looked}{how}"


def _table(rows: list[list[str]]) -> str:
    """Rows as columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
