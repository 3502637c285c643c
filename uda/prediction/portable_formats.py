"""Programs of networks in the formats of ONNX and of torch.export: made, written and run."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from uda.prediction.portable_network import OutputName
from uda.utilities.errors import require
from uda.utilities.extras import require_extra

FormatName = Literal["onnx", "torch"]
Outputs = dict[str, Tensor]
Runner = Callable[[Tensor], Outputs]
Trace = Callable[
    [Sequence[OutputName]], ExportedProgram
]  # the program with the outputs of these names

METADATA_FILE = "uda.json"  # inside a program of torch
_OPSET = 18  # of ONNX: the first whose operators resize as torch does; runtimes since 2023 have it
_MOST_BYTES = 2**31 - 2**20  # that a protocol buffer can hold


class Format(ABC):
    """A kind of file. Programs have one input, "images", and named outputs."""

    name: ClassVar[FormatName]
    suffix: ClassVar[str]
    title: ClassVar[str]  # in words

    @property
    @abstractmethod
    def runner(self) -> str:
        """What runs such files here, with its version."""

    @abstractmethod
    def require_packages(self) -> None:
        """Raises InputError, with the command that installs it, when a package is missing."""

    @abstractmethod
    def made(self, trace: Trace, names: Sequence[OutputName]) -> "Made":
        """The program with these outputs."""

    @abstractmethod
    def read(self, path: Path, names: Sequence[OutputName]) -> Runner:
        """The program in a file, ready to run on the CPU."""


class Made(ABC):
    """A program in a format, in memory."""

    @abstractmethod
    def run(self, images: Tensor) -> Outputs:
        """All its outputs, on the CPU."""

    @abstractmethod
    def write(
        self, file: BinaryIO, names: Sequence[OutputName], metadata: Mapping[str, object]
    ) -> None:
        """Writes the program with only these of its outputs."""


class _Onnx(Format):
    name = "onnx"
    suffix = ".onnx"
    title = f"ONNX, opset {_OPSET}"

    @property
    def runner(self) -> str:
        return f"onnxruntime {_onnx('onnxruntime').__version__} on the CPU"

    def require_packages(self) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _onnx(package)

    def made(self, trace: Trace, names: Sequence[OutputName]) -> "_OnnxModel":
        program = trace(names)
        with redirect_stdout(io.StringIO()):  # some versions of onnxscript talk
            made = torch.onnx.export(
                program, (), dynamo=True, opset_version=_OPSET, verbose=False,
                input_names=["images"], output_names=list(names),
            )  # fmt: skip
        assert made is not None
        return _OnnxModel(made.model_proto)

    def read(self, path: Path, names: Sequence[OutputName]) -> Runner:
        return _session(str(path))


class _OnnxModel(Made):
    def __init__(self, proto: Any) -> None:  # noqa: ANN401 - onnx.ModelProto, an optional package
        require(
            proto.ByteSize() < _MOST_BYTES,
            "the network is larger than 2 GiB, which one ONNX file cannot hold: use --format torch",
        )
        self._proto = proto
        self._session: Runner | None = None

    def run(self, images: Tensor) -> Outputs:
        if self._session is None:
            self._session = _session(self._proto.SerializeToString())
        return self._session(images)

    def write(
        self, file: BinaryIO, names: Sequence[OutputName], metadata: Mapping[str, object]
    ) -> None:
        outputs = {output.name: output for output in self._proto.graph.output}
        kept = [outputs[name] for name in names]
        del self._proto.graph.output[:]
        self._proto.graph.output.extend(kept)
        for key, value in metadata.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self._proto.metadata_props.add(key=key, value=text)
        file.write(self._proto.SerializeToString())


def _session(model: str | bytes) -> Runner:
    session = _onnx("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        found: list[np.ndarray[Any, Any]] = session.run(names, {"images": images.numpy()})
        return {name: torch.from_numpy(a) for name, a in zip(names, found, strict=True)}

    return run


def _onnx(package: str) -> Any:  # noqa: ANN401 - a module of an optional package
    return require_extra("onnx", needed_by="--format onnx", package=package)


class _Torch(Format):
    name = "torch"
    suffix = ".pt2"
    title = "torch.export"

    @property
    def runner(self) -> str:
        return f"torch {torch.__version__} on the CPU"

    def require_packages(self) -> None:
        pass

    def made(self, trace: Trace, names: Sequence[OutputName]) -> "_TorchProgram":
        return _TorchProgram(trace, names)

    def read(self, path: Path, names: Sequence[OutputName]) -> Runner:
        with path.open("rb") as file:
            return _runner(torch.export.load(file), names)


class _TorchProgram(Made):
    def __init__(self, trace: Trace, names: Sequence[OutputName]) -> None:
        self._trace = trace
        self._names = tuple(names)
        self._program = trace(names)
        self._run = _runner(self._program, names)

    def run(self, images: Tensor) -> Outputs:
        return self._run(images)

    def write(
        self, file: BinaryIO, names: Sequence[OutputName], metadata: Mapping[str, object]
    ) -> None:
        same = tuple(names) == self._names
        program = self._program if same else self._trace(names)
        extra = {METADATA_FILE: json.dumps(metadata)}
        torch.export.save(program, file, extra_files=extra)


def _runner(program: ExportedProgram, names: Sequence[OutputName]) -> Runner:
    module = program.module()

    def run(images: Tensor) -> Outputs:
        with torch.no_grad():
            return dict(zip(names, module(images), strict=True))

    return run


FORMATS: dict[FormatName, Format] = {made.name: made for made in (_Onnx(), _Torch())}
