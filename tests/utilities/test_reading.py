"""What may be opened: every reader refuses pipes, devices, folders and odd names, and soon."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from uda.checkpoints import snapshots
from uda.data.datasets.clothes import check_names
from uda.data.described.file import read_description
from uda.data.described.mapping import read_mapping
from uda.data.file_tree import files_below
from uda.data.files import read_header, read_image
from uda.data.known_files import FileCache, KnownFiles
from uda.data.list_files import entries_of
from uda.data.polygons import read_outlines
from uda.data.preparation.densepose import read_people
from uda.data.preparation.fashion_annotations import read_annotations
from uda.data.pseudo_label_folder import MANIFEST, read_manifest
from uda.data.translated_folder import MANIFEST as TRANSLATION
from uda.data.translated_folder import find_manifest
from uda.prediction.inputs import listed_images
from uda.reports.adaptation_file import NAME as ADAPTATION
from uda.reports.adaptation_file import read_adaptation
from uda.reports.per_image import NAME as PER_IMAGE
from uda.reports.per_image import read_per_image
from uda.reports.run_log import NAME as LOG
from uda.reports.run_log import read_log
from uda.utilities.errors import InputError
from uda.utilities.reading import expanded, opened, parsed_json, read_bytes, real
from uda.utilities.unfinished import UnfinishedFolder
from uda.utilities.user_cache import cache_file
from uda.utilities.weight_files import read_weights

Reader = Callable[[Path], object]


def called(name: str, read: Reader) -> tuple[str, Reader]:
    """A reader of the file `name` in a folder that it is given."""
    return name, lambda path: read(path.parent)


READERS: dict[str, tuple[str, Reader]] = {
    "description": ("own.toml", read_description),
    "mapping": ("ids.json", lambda path: read_mapping(path, ("road",))),
    "list": ("train.txt", lambda path: entries_of(path, "train")),
    "list of images": ("some.txt", lambda path: listed_images([path], path.parent / "out")),
    "polygons": ("a.json", read_outlines),
    "people": ("people.json", read_people),
    "fashion": ("fashion.json", read_annotations),
    "kaggle": ("fashion.csv", read_annotations),
    "names": ("labels.csv", check_names),
    "pseudo-labels": called(MANIFEST, read_manifest),
    "translation": called(TRANSLATION, find_manifest),
    "adaptation": called(ADAPTATION, read_adaptation),
    "log": called(LOG, read_log),
    "per image": called(PER_IMAGE, read_per_image),
    "cache": ("files.json", FileCache),
    "digest": ("a.bin", lambda path: KnownFiles().digests([path])),
    "header": ("a.png", read_header),
    "image": ("a.png", read_image),
    "weights": ("a.pth", lambda path: read_weights(path, expected="weights", instead="none")),
    "snapshot": ("GTA5_1.pth", snapshots.load),
}


def soon(read: Reader, path: Path) -> None:
    """Reads, or refuses to; waits for nothing, and raises nothing else."""
    with suppress(InputError):
        read(path)


@pytest.mark.parametrize("kind", READERS)
def test_odd_places_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    name, read = READERS[kind]
    path = tmp_path / name
    soon(read, path)
    path.mkdir()
    soon(read, path)
    path.rmdir()
    os.mkfifo(path)
    soon(read, path)
    path.unlink()
    for target in (name, "/dev/zero", "/dev/full", "/proc/self/mem", "nowhere"):
        path.symlink_to(target)
        soon(read, path)
        path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # such names are short
        server.bind(name)
        soon(read, path)
        path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on disk
    if kind not in ("digest", "kaggle", "fashion", "weights", "snapshot"):
        soon(read, path)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("x" * 300, "a/" * 3000, "a\0b", "\ud800"):
        with pytest.raises((OSError, ValueError), match=r"name|No such|null|encode"):
            opened(tmp_path / name)


def test_a_file_without_a_size_is_bounded() -> None:
    assert read_bytes(Path("/proc/self/stat"), 2**20)
    with pytest.raises(OSError, match="it has more than 3 bytes"):
        read_bytes(Path("/proc/self/stat"), 3)


def test_a_folder_of_nobody() -> None:
    with pytest.raises(InputError, match="root is ~nosuchuser/a, but there is no user nosuchuser"):
        expanded(Path("~nosuchuser/a"), "root")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 10**6, "it is nested too deeply"),
        ('{"a":' * 10**6, "it is nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "it has the key 'a' twice"),
        ("[NaN]", "NaN is no number of JSON"),
        ("9" * 10**6, "Exceeds the limit"),
    ],
)
def test_odd_json(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parsed_json(text)


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "b.png").touch()
    for number in range(9):
        (folder / f"up{number}").symlink_to(tmp_path)
        (folder / f"itself{number}").symlink_to(f"itself{number}")
    found = files_below(tmp_path)
    assert "a/b.png" in found
    assert len(found) == 10
    deep = tmp_path / "/".join("d" * 100)
    deep.mkdir(parents=True)
    with pytest.raises(InputError, match="more than 64 folders below"):
        files_below(tmp_path)


def test_a_cache_of_odd_facts_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    os.utime(path, (1, 1))
    files = KnownFiles()
    (digest,) = files.digests([path])
    files.finish()
    cache = cache_file("files.json")
    content = cache.read_bytes()
    assert FileCache(cache)._entries
    flipped = content.replace(digest[:1].encode(), b"?", 1)
    cache.write_bytes(flipped)
    assert not FileCache(cache)._entries
    odd = FileCache(cache)
    odd.put(f"sha256:{path}", files.stamps([path])[0].state, ["odd"])
    odd.save()
    assert KnownFiles().digests([path]) == [digest]


def test_links_that_lead_to_each_other_lead_somewhere(tmp_path: Path) -> None:
    """An output folder that is such a link is a line; it was a traceback."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert real(tmp_path / "one").parent == real(tmp_path)
    with (
        pytest.raises(InputError, match="cannot be written"),
        UnfinishedFolder(tmp_path / "one", check=lambda: None) as unfinished,
    ):
        unfinished.finish()
    assert (tmp_path / "one").is_symlink()
