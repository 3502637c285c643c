"""A flipped bit of a record is noticed; what was written before there were digests is read."""

import json

import pytest

from uda.utilities.sealed_json import checked_line, line_values, sealed, unsealed

VALUES = {"format": "uda-1", "share": 0.25, "names": ["a", "b"], "inner": {"x": None}}


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_no_flipped_bit_passes(indent: int | None) -> None:
    content = sealed(VALUES, indent=indent)
    assert unsealed(content) == VALUES
    assert json.loads(content).keys() - VALUES == {"sha256"}
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"."):
            unsealed(bytes(damaged))


def test_no_flipped_bit_of_a_log_passes() -> None:
    line = checked_line({"step": 5, "lr": 0.25, "losses": "a: nan"})
    assert line_values(line) == {"step": 5, "lr": 0.25, "losses": "a: nan"}
    for place in range(8 * len(line)):
        damaged = bytearray(line.encode())
        damaged[place // 8] ^= 1 << place % 8
        try:
            found = line_values(bytes(damaged))
        except ValueError:
            continue
        assert (found.get("step"), found.get("lr")) == (5, 0.25), "only the key was damaged"


def test_records_without_a_digest_are_read() -> None:
    assert unsealed(json.dumps(VALUES).encode()) == VALUES
    assert line_values('{"step": 1}') == {"step": 1}


def test_records_that_were_edited_are_refused() -> None:
    edited = sealed(VALUES).replace(b"0.25", b"0.75")
    with pytest.raises(ValueError, match="remove that line and the comma before it"):
        unsealed(edited)
    body, _, _ = edited.rpartition(b",\n")
    assert unsealed(body + b"}") == VALUES | {"share": 0.75}
