"""Pages read as a browser would: elements, their attributes and texts."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "input", "br", "hr", "link", "path", "rect", "line", "circle", "polyline"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list["Element"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """The elements below of this tag, in the order of the page, with these attributes."""
        found = []
        for child in self.children:
            same = all(child.attributes.get(name) == text for name, text in attributes.items())
            found += [child] if child.tag == tag and same else []
            found += child.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """Its text with single spaces. (Mixed content keeps its own texts before its elements'.)"""
        words = " ".join([*self.texts, *(child.text for child in self.children)])
        return " ".join(words.split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("page", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].texts.append(data)


def page_of(path: Path) -> Element:
    """The page in a file. It must be whole, load nothing, and have one script of ours."""
    reader = _Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert len(reader.open) == 1, f"{reader.open[-1].tag} is not closed"
    page = reader.root
    assert len(page.all("script")) == 1
    ids = [element.attributes["id"] for element in everything(page) if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in everything(page):
        assert not any(name.startswith("on") for name in element.attributes)
        address = element.attributes.get("src") or element.attributes.get("href") or "#"
        assert address.startswith(("data:", "#")), address
        if element.tag == "img":
            assert element.attributes.get("alt")
        if element.tag == "th":
            assert element.attributes.get("scope")
        if element.tag in ("input", "svg"):
            assert "aria-label" in element.attributes or "aria-hidden" in element.attributes
    return page


def everything(element: Element) -> list[Element]:
    return [found for child in element.children for found in (child, *everything(child))]


def rows_of(table: Element) -> list[list[str]]:
    """The texts of a table's cells."""
    return [
        [cell.text for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tr")
    ]
