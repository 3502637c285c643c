"""A network with all that is around it, as programs without this library use it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from uda.evaluation.protocols import Size
from uda.models.segmenter import Segmenter
from uda.utilities.errors import InputError
from uda.utilities.weight_files import reason

OutputName = Literal["labels", "confidence", "logits"]
PixelKind = Literal["uint8", "float"]

INPUTS: dict[PixelKind, str] = {
    "uint8": "(N, H, W, 3) uint8, RGB as cameras and image libraries give it",
    "float": "(N, 3, H, W) float32, RGB in [0, 1]",
}
OUTPUTS: dict[OutputName, str] = {
    "labels": "(N, H, W) uint8, places in the list of classes, from 0",
    "confidence": "(N, H, W) float32, probability of the label",
    "logits": "(N, C, H, W) float32",
}
# Sizes that a program for any size is traced at, and tried at.
_TRACED: Size = (129, 195)
_TRIED: Size = (225, 350)
_LEAST = 64  # pixels of a side, where multiples of a number are allowed


class PortableNetwork(nn.Module):
    """Images as a camera gives them go in; what is known of each pixel comes out."""

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        fused: bool = False,
        pixels: PixelKind = "uint8",
        outputs: Sequence[OutputName] = ("labels",),
    ) -> None:
        """`fused`: the logits of both heads, as `Protocol.heads` has it."""
        super().__init__()
        self.segmenter = segmenter
        self.fused = fused
        self.pixels = pixels
        self.outputs = tuple(outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The `outputs` in their order, of the shapes in `OUTPUTS`.

        images: see `INPUTS`
        """
        if self.pixels == "uint8":
            images = images.permute(0, 3, 1, 2).float() / 255
        logits = logits_of(self.segmenter, images, fused=self.fused)
        found: dict[OutputName, Tensor] = {"logits": logits}
        if "labels" in self.outputs:
            found["labels"] = logits.argmax(dim=1).to(torch.uint8)
        if "confidence" in self.outputs:
            found["confidence"] = logits.softmax(dim=1).amax(dim=1)
        return tuple(found[name] for name in self.outputs)


def logits_of(segmenter: Segmenter, images: Tensor, *, fused: bool) -> Tensor:
    """(N, C, H, W) of the main head, or with `fused` plus half of those of the auxiliary head.

    images: (N, 3, H, W) float, RGB in [0, 1]
    """
    output = segmenter(images)
    logits: Tensor = output.logits
    return logits + 0.5 * output.auxiliary_logits if fused else logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A network as a program of torch.export, for images of as many sizes as it allows."""

    network: PortableNetwork
    title: str  # of the network, in words
    size: Size | None  # (H, W) of all images; none: any
    multiple: int  # of which sides have to be, where any size is allowed
    batch: int | None  # images at once; none: any number
    _traced: dict[tuple[OutputName, ...], ExportedProgram] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, network: PortableNetwork, title: str, size: Size | None) -> Self:
        """A program for images of that size, or of any, with the network's outputs.

        Raises InputError when the network has none. One whose number of images cannot vary has a
        program for a single image of a fixed size.
        """
        network.eval()
        kinds: list[tuple[int, int | None]]
        if size is None:
            # Padding is a branch, of which a program has one: without it, sides are multiples.
            scaled = getattr(network.segmenter, "input_scale", None) is not None
            kinds = [(1 if scaled else network.segmenter.divisor, None)]
            advice = "give the size of your images: --size WIDTHxHEIGHT"
        else:
            kinds = [(1, None), (1, 1)]
            advice = "another size, or another version of torch, may do"
        for multiple, batch in kinds:
            made = cls(network=network, title=title, size=size, multiple=multiple, batch=batch)
            try:
                made.trace(network.outputs)
            except Exception as error:  # tracing stumbles over whatever a network does
                failure = error
            else:
                return made
        raise InputError(
            f"{title} has no program for {'any' if size is None else 'this'} size "
            f"({reason(failure)}): {advice}"
        ) from failure

    @property
    def sizes(self) -> str:
        """Which images it takes, in words."""
        images = "N any" if self.batch is None else f"N {self.batch}"
        if self.size is not None:
            return f"{images}, H {self.size[0]}, W {self.size[1]}"
        multiples = f"multiples of {self.multiple}, at least {self._least}"
        return f"{images}, H and W {'any' if self.multiple == 1 else multiples}"

    @property
    def shown_sizes(self) -> tuple[Size, Size]:
        """Two sizes that it takes, different ones if it takes several; the first is traced."""
        if self.size is not None:
            return self.size, self.size
        return self._divisible(_TRACED), self._divisible(_TRIED)

    def trace(self, outputs: Sequence[OutputName]) -> ExportedProgram:
        """The program with these outputs; torch's errors where there is none."""
        outputs = tuple(outputs)
        if outputs in self._traced:
            return self._traced[outputs]
        size, count = self.shown_sizes[0], self.batch or 2
        if self.network.pixels == "uint8":
            rows, images = 1, torch.zeros(count, *size, 3, dtype=torch.uint8)
        else:
            rows, images = 2, torch.zeros(count, 3, *size)
        shapes: dict[int, Any] = {} if self.batch is not None else {0: Dim.DYNAMIC}
        if self.size is None:
            sides = (Dim(name, min=self._least // self.multiple) for name in ("rows", "columns"))
            for dimension, side in enumerate(sides, rows):
                shapes[dimension] = Dim.DYNAMIC if self.multiple == 1 else self.multiple * side
        network = PortableNetwork(
            self.network.segmenter,
            fused=self.network.fused,
            pixels=self.network.pixels,
            outputs=outputs,
        ).eval()
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            self._traced[outputs] = export(network, (images,), dynamic_shapes=(shapes,))
        return self._traced[outputs]

    @property
    def _least(self) -> int:
        return -(-_LEAST // self.multiple) * self.multiple

    def _divisible(self, size: Size) -> Size:
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        return height, width
