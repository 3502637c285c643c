"""HTML pages of our templates: whole in one file, and nothing from outside is ever markup.

Two guards, each of which is enough: every value is escaped when it is put into a template, and the
page allows a browser to run no script but ours (its hash is in the page) and to load nothing.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from uda.utilities.atomic_files import replacing
from uda.utilities.errors import require, shortened
from uda.utilities.terminal import printable_lines
from uda.utilities.version import __version__

LARGEST = 20 * 10**6  # bytes of a page
_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 4000  # characters of one value: files can hold texts of any length


def write_page(path: Path, template: str, values: Mapping[str, object]) -> Path:
    """Writes the page that `template` makes of `values`, whole or not at all; its path.

    Raises InputError when the page is larger than LARGEST, and WriteError when the file cannot be
    written.
    """
    content = rendered(template, values).encode("utf-8", "backslashreplace")
    require(
        len(content) <= LARGEST,
        f"{path} would have {len(content) / 10**6:.1f} MB; allowed: {LARGEST // 10**6} MB: ask for "
        "fewer pictures",
    )
    with replacing(path) as file:
        file.write(content)
    return path


def rendered(template: str, values: Mapping[str, object]) -> str:
    """The page that the file `template` in templates/ makes of `values`."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_bounded,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        Markup((_TEMPLATES / name).read_text("utf-8"))  # our own files
        for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": style, "script": script, "script_hash": digest, "version": __version__,
    }  # fmt: skip
    environment.filters |= {"percent": percent, "number": number, "signed": signed}
    return environment


def _bounded(value: object) -> object:
    """A value as a page holds it: texts that are not ours cannot be longer than _LONGEST,
    nor turn the direction of what follows."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable_lines(shortened(value, _LONGEST))
    return value


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent, without the sign; a dash for none and for what is not finite."""
    return number(None if share is None else 100 * share, digits)


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals; a dash for none and for what is not finite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """The same with a sign, as differences have it."""
    text = number(value, digits)
    return text if text.startswith("-") else f"+{text}"
