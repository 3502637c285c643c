"""Every name that a file system can hold is listed, under one that every system can hold."""

import os
from pathlib import Path

import pytest

from factories import noise, write_png
from uda.data.pseudo_label_folder import file_name
from uda.data.registry import list_dataset

NAMES = [
    "new\nline", "tab\tx", "cr\rx", "esc\x1b[31m", "quote\"'q", "-dash", "--help", "end ", " begin",
    "rtl\u202eabc", "emoji 🙂", "Case", "case", "nfcé", "nfce\u0301", "con", "%41", "a#b", "q?x",
    "amp&<b>", "a;b,c", "$HOME`id`", "back\\slash", "co:lon", "[g]*", "{name}", "~tilde", "e" * 251,
    os.fsdecode(b"bad\xff\xfe"),
]  # fmt: skip


def test_every_name_is_listed_under_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        write_png(tmp_path / "images" / f"{name}.png", noise(1, (2, 2)))
    (tmp_path / "d.toml").write_text(
        'images = "images/{name}.png"\nsplits = ["train"]\n[[classes]]\nname = "a"\nvalue = 0\n'
    )
    samples = list_dataset(tmp_path, "d.toml", "train", labeled=False)
    assert {sample.image.stem for sample in samples} == set(NAMES)
    stems = {sample.image.stem: sample.stem for sample in samples}
    assert len(set(stems.values())) == len(NAMES)
    assert stems["Case"] == "Case"
    assert stems["new\nline"] == "new%0Aline"
    assert stems[NAMES[-1]] == "bad%FF%FE"
    assert len(stems["e" * 251]) == 180
    for stem in stems.values():
        assert file_name(stem).isprintable()
