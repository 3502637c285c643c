"""What is printed is shown, not obeyed, in any encoding, and a stream that fails is one line."""

import io
import os
import sys
from pathlib import Path

import pytest

from uda.commands.endings import clear_errors
from uda.utilities.terminal import plain_streams, printable, printable_lines

HOSTILE = "a\x1b[31m\x07\x9b2J\u202e\udcff\x00b"
SHOWN = "a\\x1b[31m\\x07\\x9b2J\\u202e\\udcff\\x00b"


def test_texts_are_escaped() -> None:
    assert printable(HOSTILE + "\nc\t") == SHOWN + "\\nc\\t"
    assert printable_lines(HOSTILE + "\nc\t") == SHOWN + "\nc\t"
    assert printable("ordinary ä 漢 🙂") == "ordinary ä 漢 🙂"


def test_everything_printed_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_streams(), plain_streams():
        print(HOSTILE, "\r")
        print(HOSTILE, "\r", file=sys.stderr)
    assert capsys.readouterr() == (f"{SHOWN} \\r\n", f"{SHOWN} \r\n")
    print("\x1b", end="")
    assert capsys.readouterr().out == "\x1b"  # as it was


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "shift-jis"])
def test_any_encoding_can_be_written(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with plain_streams():
        print("ä 漢 🙂 \udcff")
        sys.stdout.flush()
        assert raw.getvalue()
    kept = "ä 漢 🙂 ".encode(encoding, "backslashreplace")
    assert raw.getvalue() == kept + b"\\udcff\n"


def test_closed_streams_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with plain_streams():
        print("out")
        print("error", file=sys.stderr)
        assert not sys.stderr.isatty()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end, clear_errors():
            print("text")
        assert end.value.code == 2
    assert "standard output cannot be written (No space left" in capsys.readouterr().err


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as end, clear_errors():
            print("text")
        assert end.value.code == 1
        monkeypatch.setattr(sys, "stderr", pipe)
        with clear_errors():
            print("text", file=sys.stderr, flush=True)
    assert capsys.readouterr().err == ""
