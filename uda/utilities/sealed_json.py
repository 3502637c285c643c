"""JSON that ends with a digest of itself, so that a flipped bit of a record is noticed."""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from uda.utilities.reading import parsed_json

_KEY = "sha256"  # of all bytes before it; the last key
_BEFORE, _AFTER = f',\n "{_KEY}": "'.encode(), b'"\n}\n'
_SEALED = re.compile(rb'"[0-9a-f]{64}"\n\}\n\Z')  # a digest ends it, whatever it is called
_CHECK = "check"  # CRC-32 of a line of a log; the last key


def sealed(values: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """The file of `values`, a JSON object that is not empty; ValueError when it holds NaN."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(values, indent=indent, separators=separators, allow_nan=False)
    body = text.removesuffix("}").rstrip().encode()
    return body + _BEFORE + hashlib.sha256(body).hexdigest().encode() + _AFTER


def unsealed(content: bytes) -> Any:  # noqa: ANN401  # what JSON can hold
    """What `sealed` was given or, of a file without a digest, such as an older one, what it says;
    ValueError when it is damaged or no JSON."""
    values = parsed_json(content)
    if not isinstance(values, dict) or (_KEY not in values and not _SEALED.search(content)):
        return values
    body, _, _ = content.rpartition(_BEFORE)
    if content != body + _BEFORE + hashlib.sha256(body).hexdigest().encode() + _AFTER:
        raise ValueError(
            f"its content does not have the {_KEY} at its end: it is damaged; or was edited: then "
            "remove that line and the comma before it"
        )
    del values[_KEY]
    return values


def checked_line(values: Mapping[str, Any]) -> str:
    """One line of a log, with its check sum at the end."""
    text = json.dumps(values)
    return f'{text.removesuffix("}")}, "{_CHECK}": "{_crc(text)}"}}'


def line_values(line: str | bytes) -> dict[str, Any]:
    """What `checked_line` was given or, of a line without a check sum, what it says; ValueError
    when it is damaged or no JSON object."""
    text = line.decode() if isinstance(line, bytes) else line
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if _CHECK not in values:
        return values
    body, _, _ = text.rpartition(f', "{_CHECK}"')
    if values.pop(_CHECK) != _crc(body + "}"):
        raise ValueError("its content does not have the check sum at its end")
    return values


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
