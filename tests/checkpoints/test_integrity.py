"""Files of weights are whole, and cost no more than they are long: or they are refused by name."""

import io
import os
import pickle
import struct
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from factories import tiny_snapshot
from uda.checkpoints.recovery import recover_tensors
from uda.checkpoints.snapshots import load, read, save, snapshot_values
from uda.experiments import load_preset
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.registry import build_encoder
from uda.reports.run_list import listed_runs
from uda.utilities.errors import InputError
from uda.utilities.torch_archives import values_without_tensors
from uda.utilities.weight_files import read_weights

SMALL: dict[str, Any] = {
    "a": torch.arange(12.0).view(3, 4),
    "b": {"c": torch.arange(5), "d": [1, 2, "x"]},
}
READERS: list[Callable[[Path], object]] = [
    lambda path: read_weights(path, expected="weights", instead="do without"),
    recover_tensors,
]


def refusal(call: Callable[[], object]) -> str:
    """One line, and within a moment."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        call()
    assert time.monotonic() - started < 20  # of a second's work; never minutes
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusals(path: Path, readers: Sequence[Callable[[Path], object]] = READERS) -> str:
    """What all `readers` say of the file; each must refuse it."""
    return min(refusal(partial(reader, path)) for reader in readers)


def flips(whole: bytes, bits: range) -> list[bytes]:
    """Copies with one bit flipped each."""
    copies = []
    for bit in bits:
        copy = bytearray(whole)
        copy[bit // 8] ^= 1 << bit % 8
        copies.append(bytes(copy))
    return copies


def test_one_flipped_bit_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    save(SMALL, path)
    whole = path.read_bytes()
    for damaged in flips(whole, range(0, 8 * len(whole), 7)):  # every place, each bit of a byte
        path.write_bytes(damaged)
        assert refusal(lambda: READERS[0](path)).startswith(f"{path} ")
    for damaged in (whole[:-1], whole[:-75], whole[: len(whole) // 2], whole + b"\0", whole * 2):
        path.write_bytes(damaged)
        refusal(lambda: READERS[0](path))
    path.write_bytes(whole)
    found: Any = READERS[0](path)
    assert torch.equal(found["a"], SMALL["a"])
    assert torch.equal(torch.load(path, weights_only=True)["a"], SMALL["a"])  # torch's own file
    assert zipfile.ZipFile(path).testzip() is None


def test_one_flipped_bit_of_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    assert safetensors.__version__
    from uda.utilities.safetensors_files import write_safetensors

    path = tmp_path / "small.safetensors"
    values = {"format": "uda-snapshot-1", "step": 5, "preset": "tiny"}
    for snapshot in (None, values):
        with path.open("wb") as file:
            write_safetensors(file, {"a": torch.arange(3.0)}, snapshot)
        whole = path.read_bytes()
        for damaged in flips(whole, range(0, 8 * len(whole), 5)):
            path.write_bytes(damaged)
            refusal(lambda: READERS[0](path))
        path.write_bytes(whole)
        assert READERS[0](path)


def test_files_of_torch_are_checked_by_their_own_sums(tmp_path: Path) -> None:
    """Also by the reader of files that could run code. Only numbers: a name may have no sum."""
    path = tmp_path / "theirs.pth"
    torch.save(SMALL, path)
    whole = path.read_bytes()
    place = whole.index(struct.pack("<f", 7.0))
    for damaged in flips(whole, range(8 * place, 8 * place + 32)):
        path.write_bytes(damaged)
        assert "does not match its checksum" in refusals(path)


def test_a_file_without_sums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "none.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(SMALL, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert isinstance(READERS[0](path), dict)
    assert isinstance(recover_tensors(path)[0], dict)


# --- what reading may cost


def nested(kind: Callable[[list[Any]], Any], *, depth: int = 19, width: int = 30) -> Any:  # noqa: ANN401
    """Shared lists in lists: a moment to write, and 30^19 to go through."""
    found: Any = kind([1])
    for _ in range(depth):
        found = kind([found] * width)
    return found


def deep(levels: int) -> Any:  # noqa: ANN401
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


HOSTILE: dict[str, Callable[[], Any]] = {
    "shared lists": lambda: nested(list),
    "shared tuples": lambda: nested(tuple),
    "shared dicts": lambda: nested(lambda parts: dict(enumerate(parts))),
    "a wide one": lambda: [[0] * 3000] * 3000,
    "a shared tuple as a key": lambda: {nested(tuple, depth=5): 1},
    "an ordered dict of such": lambda: OrderedDict([(nested(tuple, depth=5), 1)]),
    "a deep list": lambda: deep(300),
    "strides of 0": lambda: torch.zeros(1).expand(10**6, 10**5),
    "many of one storage": lambda: (
        [torch.zeros(2**20).view(2**10, -1) for _ in range(1)] * 1
        + [torch.zeros(1).expand(2**20)[i:] for i in range(0, 2**20, 1000)]
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_for_ever_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "odd": HOSTILE[name]()}, path)
    assert path.stat().st_size < 2**23
    refusals(path)


def archive_with(pickled: bytes, storages: dict[str, bytes], **options: Any) -> bytes:  # noqa: ANN401
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        for name, content in storages.items():
            archive.writestr(f"x/data/{name}", content)
        archive.writestr("x/version", "3\n")
    return target.getvalue()


def described(
    *, count: int = 4, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    """A pickle of one tensor of floats, as torch writes it."""

    outside = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            stored = ("storage", torch.FloatStorage, "0", "cpu", count)
            return stored if value is outside else None

    class Rebuilt:
        def __reduce__(self) -> tuple[Any, ...]:
            arguments: tuple[Any, ...] = (outside, offset, size, stride, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    target = io.BytesIO()
    Pickler(target, protocol=2).dump({"weight": Rebuilt()})
    return target.getvalue()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 10**6}, "larger than what the file has"),  # torch reads beyond the record
        ({"count": -1}, "larger than what the file has"),
        ({"offset": 1}, "outside its storage"),
        ({"offset": -1}, "as torch does not"),
        ({"size": (10**12,)}, "outside its storage"),
        ({"size": (10**7, 10**7), "stride": (0, 0)}, "strides of 0"),
        ({"size": (-4,)}, "no shape"),
        ({"stride": (-1,)}, "no shape"),
        ({"stride": (1, 1)}, "as torch does not"),
    ],
)
def test_tensors_outside_their_storage(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(archive_with(described(**given), {"0": bytes(16)}))
    assert said in refusals(path)
    path.write_bytes(archive_with(described(), {"0": bytes(16)}))
    found: Any = READERS[0](path)
    assert torch.equal(found["weight"], torch.zeros(4))


def calling(function: str, *arguments: object) -> bytes:
    """A pickle that calls `function`, such as "torch FloatTensor", with plain arguments."""
    inner = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + function.replace(" ", "\n").encode() + b"\n" + inner + b"R."


@pytest.mark.parametrize(
    "pickled",
    [
        calling("torch FloatTensor", 10**12),
        calling("torch Tensor", 10**12),
        calling("__builtin__ bytearray", 10**12),
        calling("builtins bytearray", 10**12),
        calling("_codecs encode", "x" * 10**5, "punycode"),
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nFloatTensor\nctorch\nTensor\n"
        + pickle.dumps((10**12,), protocol=2)[2:-1]
        + b"Nt" + b"R.",
        b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00x.",
        b"N" * (2**26 + 1),
    ],
)  # fmt: skip
def test_what_asks_for_memory_by_a_number(pickled: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(archive_with(pickled, {}))
    refusals(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive_with(described(), {}), "storage '0' is missing"),
        (archive_with(described(), {"0": bytes(16), "../y/data.pkl": b"N."}), "2 entries data.pkl"),
        (archive_with(described(), {"0": bytes(16), "a": b"", "A": b""}), "two entries of one"),
        (archive_with(described(), {"0": bytes(16), "../constants.pkl": b""}), "TorchScript"),
    ],
)  # fmt: skip
def test_archives_that_torch_does_not_write(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    assert said in refusals(path)


def test_a_zip_that_grows_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", described(count=2**26))
        archive.writestr("x/data/0", bytes(2**28))
    assert path.stat().st_size < 2**20
    assert "compressed" in refusals(path)


def test_files_of_before_archives(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    with warnings.catch_warnings(action="ignore"):
        torch.save(SMALL, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    found: Any = READERS[0](path)
    assert torch.equal(found["a"], SMALL["a"])
    for damaged in (whole[:-1], whole[:-30], whole[:200]):
        path.write_bytes(damaged)
        refusals(path)
    place = whole.rindex(struct.pack("<q", 5))  # how many numbers the last storage has
    path.write_bytes(whole[:place] + struct.pack("<q", 10**15) + whole[place + 8 :])
    refusals(path)


def test_values_are_read_without_tensors(tmp_path: Path) -> None:
    save(SMALL | {"step": 7}, tmp_path / "x.pth")
    found: Any = values_without_tensors(tmp_path / "x.pth")
    assert found["step"] == 7
    assert found["b"]["d"] == [1, 2, "x"]
    assert not isinstance(found["a"], Tensor)


# --- weights that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    snapshot = tiny_snapshot(load_preset("gc_640x360_b2_adversarial"))
    values = snapshot_values(snapshot)
    name = next(n for n, tensor in snapshot.student.items() if tensor.numel() > 2)
    snapshot.student[name].view(-1)[2] = value
    path = tmp_path / "GTA5_1.pth"
    path.write_bytes(b"the last good file")
    with pytest.raises(FloatingPointError, match=rf"is not written: 1 tensor is \(0\.{name}\) not"):
        save(values, path)
    assert path.read_bytes() == b"the last good file"
    torch.save(values, path)  # as files of older versions are
    assert "1 tensor is (" in refusals(path, (load, read))


def test_a_backbone_that_is_not_finite(tmp_path: Path) -> None:
    """A run would end at its first step, with the file's name nowhere."""
    config = EncoderConfig(name="dinov2_vits14", weights="none", width=4)
    state = build_encoder(config).state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    path = tmp_path / "backbone.pth"
    torch.save(state, path)
    said = refusal(lambda: build_encoder(replace(config, weights=str(path))))
    assert said.startswith(f"{path}: 1 tensor is (")
    assert "not finite" in said


def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "GTA5_1.pth")
    refusals(tmp_path / "GTA5_1.pth")
    with pytest.raises(OSError, match="pipe"):
        values_without_tensors(tmp_path / "GTA5_1.pth")
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run/GTA5_5.pth")
    (tmp_path / "run/.lock").touch()
    assert [run.step for run in listed_runs(tmp_path)] == [None]
