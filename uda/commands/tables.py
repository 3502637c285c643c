"""Tables as text for a terminal and for a document."""

Rows = list[list[str]]  # of a table, the first one being its head


def text_table(rows: Rows) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if _is_number(cell) else f"{cell:<{width}}"
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()


def markdown_table(rows: Rows) -> str:
    """The same for a document."""
    from uda.evaluation.reports import markdown_rows

    head, *others = rows
    cells = [head, ["---"] * len(head), *others]
    return markdown_rows([[cell.replace("|", "\\|") for cell in row] for row in cells])
