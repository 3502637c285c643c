"""The same table for a paper (LaTeX with booktabs), a program (CSV) and a page (Markdown)."""

import csv
import re
from collections.abc import Sequence
from io import StringIO

from uda.reports.comparison import Group, by_class, overview

Rows = Sequence[Sequence[str]]

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip
# What a spreadsheet would take for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-|-?\d+(\.\d+)?")


def latex(groups: Sequence[Group]) -> str:
    """Two tabulars for each group, with the rules of booktabs: by selection, and by class. What is
    special in LaTeX is escaped."""
    blocks = ["% \\usepackage{booktabs}"]
    for group in groups:
        said = f"mIoU and IoU in percent; protocol {group.methods[0].protocol}"
        blocks.append(f"% {_one_line(said)}")
        if group.reason:
            blocks.append(f"% not comparable with the first table: {_one_line(group.reason)}")
        blocks += [_tabular(overview(group), words=5), _tabular(by_class(group), words=3)]
    return "\n".join(blocks)


def _tabular(rows: Rows, *, words: int) -> str:
    head, *others = rows
    lines = [
        rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(head) - words)}}}",
        r"\toprule",
        _latex_row(head),
        r"\midrule",
        *map(_latex_row, others),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def comma_separated(groups: Sequence[Group]) -> str:
    """A line for each method: mean and standard deviation of each figure in columns of their own,
    empty where there is none, and the number of its group: only lines of one group compare."""
    ways = list(dict.fromkeys(way for group in groups for way in group.label_free))
    classes = list(dict.fromkeys(name for g in groups for m in g.methods for name in m.classes))
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    figures = ["last", "oracle selection", *ways, *(f"IoU {name}" for name in classes)]
    writer.writerow(
        ["group", "not comparable because", "method", "supervision", "protocol", "steps", "seeds"]
        + [_cell(f"{name}{end}") for name in figures for end in ("", " std")]
    )
    for number, group in enumerate(groups, 1):
        for method in group.methods:
            oracle = [way for way in method.selected if way not in ("last", *ways)]
            found = [
                method.last,
                *(method.selected.get(way) for way in (*(oracle or [""]), *ways)),
                *(method.per_class.get(name) for name in classes),
            ]
            numbers = [
                "" if value is None else f"{value:.4f}"
                for figure in found
                for value in ((None, None) if figure is None else (figure.mean, figure.spread))
            ]
            facts = [method.name, method.supervision, method.protocol, method.steps,
                     " ".join(method.seeds)]  # fmt: skip
            words = [str(number), group.reason, *facts]
            writer.writerow([*map(_cell, words), *numbers])
    return file.getvalue().rstrip("\n")


def _cell(text: str) -> str:
    """Text that no spreadsheet runs."""
    odd = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if odd else text
