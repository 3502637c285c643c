"""Files that could run code: their tensors come out, and nothing of them runs."""

import argparse
import builtins
import io
import os
import pickle
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_runs import assert_same
from uda.checkpoints.recovery import recover_tensors
from uda.utilities.errors import InputError

both = pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])


def tensors() -> dict[str, Tensor]:
    """Of every type that networks are saved in, and of every kind of view."""
    torch.manual_seed(0)
    large = torch.randn(6, 4)
    numbers = {
        str(dtype): torch.arange(-2, 3).to(dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
            torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    views = {"transposed": large.t(), "cut": large[2:5, 1:3], "expanded": large[0].expand(3, 4)}
    odd = {"none": torch.empty(0, 3), "one": torch.tensor(3.5)}
    return numbers | views | odd


def save(content: object, path: Path, *, legacy: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@both
def test_what_torch_would_load_comes_back(tmp_path: Path, legacy: bool) -> None:
    normalization = nn.BatchNorm2d(3)
    parameter = nn.Parameter(torch.ones(2))
    parameter.tag = "kept by its state"  # type: ignore[attr-defined]
    content = {
        "state_dict": OrderedDict(tensors()),
        "norm": normalization.state_dict(),  # an ordered dict with an attribute
        "parameters": {"plain": nn.Parameter(torch.ones(2)), "tagged": parameter},
        "plain": [1, 2.5, "three", None, True, (4, "five")],
        "nested": {"list": [{"tensor": torch.ones(1)}], 7: "seven"},
    }
    found, dropped = recover_tensors(save(content, tmp_path / "x.pth", legacy=legacy))
    assert dropped == []
    assert_same(found, torch.load(tmp_path / "x.pth", weights_only=True))


@both
def test_memory_is_shared_as_it_was(tmp_path: Path, legacy: bool) -> None:
    found, _ = recover_tensors(save(tensors(), tmp_path / "x.pth", legacy=legacy))
    assert isinstance(found, dict)
    found["transposed"][1, 2] = 100.0
    assert found["cut"][0, 0].item() == 100.0


# --- what is harmless, and is not loaded by torch


@both
def test_options_and_numbers_of_numpy_are_left_out(tmp_path: Path, legacy: bool) -> None:
    content = {
        "state_dict": tensors(),
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1, nested=[np.int64(3)]),
        "array": np.ones(3),
        "counts": defaultdict(int, seen=3),
        "set": {1, 2},
        "epochs": [1, np.float32(2), 3],
    }
    path = save(content, tmp_path / "x.pth", legacy=legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found, dropped = recover_tensors(path)
    assert isinstance(found, dict)
    assert_same(found, {"state_dict": tensors(), "counts": {"seen": 3}, "epochs": [1, 3]})
    # numpy 1 calls its module numpy.core.
    assert [name.replace("numpy.core", "numpy._core") for name in dropped] == [
        "__builtin__.set",
        "argparse.Namespace",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
    ]


@both
def test_a_whole_network_beside_becomes_its_state_dict(tmp_path: Path, legacy: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    content = {"state_dict": tensors(), "network": network}
    found, dropped = recover_tensors(save(content, tmp_path / "x.pth", legacy=legacy))
    assert_same(found, {"state_dict": tensors(), "network": dict(network.state_dict())})
    assert dropped == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_later_pickles_are_read(tmp_path: Path, protocol: int) -> None:
    torch.save({"state_dict": OrderedDict(tensors())}, tmp_path / "x.pth", pickle_protocol=protocol)
    found, _ = recover_tensors(tmp_path / "x.pth")
    assert_same(found, {"state_dict": tensors()})


def test_an_ordered_dict_of_python_2_is_read(tmp_path: Path) -> None:
    """It holds its entries as a list of pairs, and text as bytes."""
    entry = b"]q\x00(]q\x01(U\x04nameq\x02K\x05ee"
    pickled = b"\x80\x02ccollections\nOrderedDict\n" + entry + b"\x85R."
    found, dropped = recover_tensors(legacy_file(tmp_path / "x.pth", pickled))
    assert (found, dropped) == ({"name": 5}, [])


# --- what is not harmless


class Reduced:
    """Is unpickled by calling `function` with `arguments`, and then given a state and entries."""

    def __init__(
        self, function: Callable[..., Any], *arguments: object, more: tuple[Any, ...] = ()
    ) -> None:
        self.reduced = (function, arguments, *more)

    def __call__(self) -> None:
        """Only what can be called can be written as something to call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


class Stateful:
    """Makes a file when its state is set, if it is ever made."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __getstate__(self) -> dict[str, Path]:
        return {"file": self.file}

    def __setstate__(self, state: dict[str, Path]) -> None:
        state["file"].touch()


def traps(file: Path) -> dict[str, object]:
    """Each makes `file` when a pickle is loaded without care."""
    touch = f"touch {file}"
    write = f"__import__('pathlib').Path({str(file)!r}).touch()"
    return {
        "system": Reduced(os.system, touch),
        "eval": Reduced(builtins.eval, write),
        "exec": Reduced(builtins.exec, write),
        "state": Stateful(file),
        "chain": Reduced(
            getattr, Reduced(__import__, "os"), "system", more=({"a": Reduced(os.system, touch)},)
        ),
        "call of a call": Reduced(Reduced(getattr, Reduced(__import__, "os"), "system"), touch),
        "entries": Reduced(
            OrderedDict, more=(None, None, iter([("a", Reduced(os.system, touch))]))
        ),
        "list": Reduced(list, more=(None, iter([Reduced(os.system, touch)]))),
        "tensor": Reduced(
            torch._utils._rebuild_parameter, Reduced(os.system, touch), False, OrderedDict()
        ),
        "subclass": Reduced(
            torch._tensor._rebuild_from_type_v2, os.system, Tensor, (touch,), {"a": 1}
        ),
    }


@both
@pytest.mark.parametrize("name", traps(Path()))
def test_nothing_of_a_file_runs(tmp_path: Path, name: str, legacy: bool) -> None:
    sprung = tmp_path / "sprung"
    content = {"trap": traps(sprung)[name], "state_dict": tensors()}
    content["traps"] = [traps(sprung)[name]]
    path = save(content, tmp_path / "x.pth", legacy=legacy)
    found, dropped = recover_tensors(path)
    assert not sprung.exists()
    assert isinstance(found, dict)
    assert_same(found["state_dict"], tensors())
    assert dropped
    # The trap is one: pickle's own way of loading springs it.
    load_carelessly(path)
    assert sprung.exists()


def load_carelessly(path: Path) -> None:
    with suppress(Exception):  # some traps give back what the rest of the file cannot use
        torch.load(path, weights_only=False)


def test_nothing_of_a_file_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sprung = tmp_path / "sprung"
    module = "import pathlib\nclass Options: pass\n"
    (tmp_path / "options_of_theirs.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    options = __import__("options_of_theirs")
    torch.save({"args": options.Options(), "state_dict": tensors()}, tmp_path / "x.pth")
    monkeypatch.delitem(sys.modules, "options_of_theirs")
    (tmp_path / "options_of_theirs.py").write_text(
        module + f"pathlib.Path({str(sprung)!r}).touch()\n"
    )
    found, dropped = recover_tensors(tmp_path / "x.pth")
    assert_same(found, {"state_dict": tensors()})
    assert dropped == ["options_of_theirs.Options"]
    assert not sprung.exists()
    assert "options_of_theirs" not in sys.modules


def legacy_file(path: Path, pickled: bytes) -> Path:
    """A file from before archives that holds one pickle and no numbers."""
    buffer = io.BytesIO()
    torch.save([], buffer, _use_new_zipfile_serialization=False)
    empty = pickle.dumps([], protocol=2)
    head, _, rest = buffer.getvalue().partition(empty)
    path.write_bytes(head + pickled + rest)
    return path


@pytest.mark.parametrize(
    "pickled",
    [
        # A state for a class itself, entries for it, and for what is no record.
        b"\x80\x02cos\nsystem\n}X\x08\x00\x00\x00__call__K\x01sb.",
        b"\x80\x02ccollections\nOrderedDict\nN}X\x06\x00\x00\x00updateK\x01s\x86b.",
        b"\x80\x02cos\nsystem\n(K\x01e.",
        b"(S'touch sprung'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch sprung'\no.",
    ],
)
def test_odd_instructions_have_no_effect(
    tmp_path: Path, pickled: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _ = recover_tensors(legacy_file(tmp_path / "x.pth", pickled))
    assert found in (None, {})
    assert not (tmp_path / "sprung").exists()
    assert OrderedDict(a=1).update is not None
    assert recover_tensors(save({"a": 1}, tmp_path / "y.pth", legacy=False)) == ({"a": 1}, [])


def test_names_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    pickled = b"\x80\x02cos\nsys\x1b[2Jtem\n)R."
    _, dropped = recover_tensors(legacy_file(tmp_path / "x.pth", pickled))
    assert dropped == [r"os.sys\x1b[2Jtem"]
    _, dropped = recover_tensors(
        legacy_file(tmp_path / "x.pth", b"\x80\x02cos\n" + b"a" * 999 + b"\n.")
    )
    assert dropped == ["os." + "a" * 77]


def test_what_holds_itself_is_left_out_of_itself(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"a": torch.ones(2)}
    endless["self"] = [endless]
    torch.save(endless, tmp_path / "x.pth")
    found, _ = recover_tensors(tmp_path / "x.pth")
    assert_same(found, {"a": torch.ones(2), "self": []})


# --- what cannot be read


def damaged(folder: Path) -> Iterator[Path]:
    for legacy in (False, True):
        path = save({"a": torch.ones(100)}, folder / f"{legacy}.pth", legacy=legacy)
        content = path.read_bytes()
        for share in (0.0, 0.01, 0.5, 0.9):
            path.write_bytes(content[: int(share * len(content))])
            yield path
    for content in (b"hello", b"\n" * 50, b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x02K\x05."):
        path.write_bytes(content)
        yield path
    yield folder


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for path in damaged(tmp_path):
        with pytest.raises(InputError, match=str(path)) as caught:
            recover_tensors(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "size", "step"), [(1, 4, 1), (0, 5, 1), (0, 4, 2), (-1, 4, 1), (0, -1, 1)]
)
def test_tensors_outside_of_their_numbers_are_refused(
    tmp_path: Path, first: int, size: int, step: int
) -> None:
    """A place, a size or a step that leads beyond the four numbers that there are."""
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    beyond = Reduced(torch._utils._rebuild_tensor, storage, first, (size,), (step,))
    torch.save({"a": beyond}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth cannot be recovered \("):
        recover_tensors(tmp_path / "x.pth")
