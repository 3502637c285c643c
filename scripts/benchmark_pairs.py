"""What pairs of an encoder and a decoder take: parameters, memory and time of a training step.

python scripts/benchmark_pairs.py --markdown docs/networks_measured.md

Each pair is measured in processes of its own, on one core, with and without checkpointing: forward
and backward of an image of 512x512, bfloat16 autocast, channels last, from random weights. Time
is that of the processor, so that other programs hardly matter. About ten minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmark_report import machine
from benchmark_step import resident
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.evaluation.reports import markdown_rows
from uda.models.decoders.base import decoder_configs
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import InputError, require
from uda.utilities.host_memory import keep_freed_memory

_CLASSES, _BATCH, _SIZE = 19, 1, 512
_STEPS, _ENOUGH = 3, 20.0  # steps are timed after one that is not; fewer after so many seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An encoder, a decoder, and settings of theirs that are not the defaults."""

    encoder: str
    decoder: str
    of_encoder: Mapping[str, Any] = field(default_factory=dict)
    of_decoder: Mapping[str, Any] = field(default_factory=dict)
    input_scale: float | None = None
    hrda: bool = False

    @property
    def name(self) -> str:
        return " + ".join([self.encoder, self.decoder, *(["hrda"] if self.hrda else [])])

    def config(self, *, size: int, checkpointing: bool) -> EncoderDecoderConfig:
        """The network for images of `size`; InputError when there is no such decoder."""
        known = decoder_configs()
        require(self.decoder in known, f"there is no decoder {self.decoder}")
        return EncoderDecoderConfig(
            encoder=EncoderConfig(
                name=self.encoder, weights="none", checkpointing=checkpointing, **self.of_encoder
            ),
            decoder=known[self.decoder](**self.of_decoder),
            input_scale=self.input_scale,
            hrda=HrdaConfig(crop=size // 2) if self.hrda else None,
        )


PAIRS = (
    Pair(encoder="resnet101", decoder="deeplabv3plus"),
    Pair(encoder="resnet101_v1c", decoder="deeplabv2", of_encoder={"output_stride": 8}),
    Pair(encoder="resnet50", decoder="upernet", of_encoder={"output_stride": 32}),
    Pair(encoder="mit_b0", decoder="segformer"),
    Pair(encoder="mit_b5", decoder="segformer", of_decoder={"channels": 768}),
    Pair(encoder="mit_b5", decoder="daformer"),
    Pair(encoder="mit_b5", decoder="daformer", hrda=True),
    Pair(encoder="dinov2_vits14", decoder="vfm_uda", input_scale=1.1),
    Pair(encoder="dinov2_vitb14", decoder="vfm_uda", input_scale=1.1),
    Pair(encoder="timm/convnext_tiny", decoder="upernet", of_encoder={"output_stride": 32}),
    Pair(encoder="timm/mobilenetv4_conv_small", decoder="deeplabv3plus"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one process has found."""

    encoder: int  # parameters
    heads: int  # all others
    peak: int  # bytes beyond those before the first step: activations, gradients
    step: float  # seconds of the processor, in the fastest step

    @property
    def cells(self) -> list[str]:
        """Memory and time, for a table."""
        return [f"{self.peak / 2**30:.2f}", f"{self.step:.1f}"]


def measure(pair: Pair, *, size: int, checkpointing: bool) -> Measured:
    """The pair in this process. InputError when the network cannot be built."""
    keep_freed_memory()
    torch.manual_seed(0)
    network = pair.config(size=size, checkpointing=checkpointing).build(_CLASSES)
    network.to(memory_format=torch.channels_last)
    images = torch.rand(_BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(_CLASSES, (_BATCH, size, size))
    before = resident("VmRSS")
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) <= _STEPS and sum(seconds) < _ENOUGH):
        begin = time.process_time()
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            output = network(images)
        loss = F.cross_entropy(output.logits, labels)
        if output.detail_logits is not None:
            top, bottom, left, right = output.detail_box.tolist()
            seen = labels[:, top:bottom, left:right]
            loss = 0.9 * loss + 0.1 * F.cross_entropy(output.detail_logits, seen)
        loss.backward()
        seconds.append(time.process_time() - begin)
    encoder, heads = network.backbone_parameters(), network.head_parameters()
    return Measured(
        encoder=sum(p.numel() for p in encoder),
        heads=sum(p.numel() for p in heads),
        peak=resident("VmHWM") - before,
        step=min(seconds[1:]),
    )


def _in_own_process(pair: Pair, *, size: int, checkpointing: bool) -> Measured:
    program = [sys.executable, __file__, "--size", str(size), "--measure", pair.name]
    done = subprocess.run(
        [*program, *(["--checkpointing"] if checkpointing else [])],
        check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return Measured(**json.loads(done.stdout))


# By pair: without and with checkpointing, if the encoder has it.
Found = dict[str, tuple[Measured, Measured | None]]


def markdown(found: Found, facts: Mapping[str, object], *, size: int) -> str:
    """The table, and how it was made."""
    head = ["encoder + decoder", "parameters, M", "of the encoder", "memory, GiB", "s per step",
            "checkpointing: memory, GiB", "s per step"]  # fmt: skip
    rows = [
        [name, f"{(plain.encoder + plain.heads) / 1e6:.1f}", f"{plain.encoder / 1e6:.1f}",
         *plain.cells, *(["-", "-"] if saving is None else saving.cells)]
        for name, (plain, saving) in found.items()
    ]  # fmt: skip
    table = markdown_rows([head, ["---", *["---:"] * (len(head) - 1)], *rows])
    return (
        "# What networks take\n\n"
        f"Forward and backward of an image of {size}x{size} in bfloat16 autocast, channels last, "
        f"on one core ({facts['processor']}; torch {facts['torch']}), each pair in a process of "
        "its own. Memory is what a step takes beyond the weights: activations, gradients (4 bytes "
        "for each parameter) and what operations need meanwhile. Time is that of the processor "
        "in the fastest step; where other programs use its caches, it may be half as long again. "
        "With checkpointing, each block of the encoder is computed again in the backward pass. "
        "Written by `scripts/benchmark_pairs.py`.\n\n"
        f"{table}\n"
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [pair.name for pair in PAIRS]
    add = parser.add_argument
    add("--only", nargs="+", choices=names, default=names, metavar="PAIR", help="omit the others")
    add("--size", type=at_least(64), default=_SIZE, help="of the images (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write all figures there")
    add("--markdown", type=Path, metavar="FILE", help="also write the table there")
    add("--measure", choices=names, help=argparse.SUPPRESS)
    add("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    pairs = {pair.name: pair for pair in PAIRS}
    if options.measure is not None:
        pair = pairs[options.measure]
        own = measure(pair, size=options.size, checkpointing=options.checkpointing)
        print(json.dumps(asdict(own)))
        return
    found: Found = {}
    for name in options.only:
        print(f"{name} ...", file=sys.stderr)
        measured: list[Measured] = []
        for checkpointing in (False, True):
            try:
                one = _in_own_process(pairs[name], size=options.size, checkpointing=checkpointing)
            except InputError as error:
                how = "with checkpointing " if checkpointing else ""
                print(f"{name} {how}is left out: {error}", file=sys.stderr)
                break
            measured.append(one)
        if measured:
            found[name] = (measured[0], measured[1] if len(measured) == 2 else None)
    facts = machine(torch.device("cpu")) | {"threads": 1}
    text = markdown(found, facts, size=options.size)
    print(text, end="")
    if options.markdown is not None:
        write_text_whole(options.markdown, text)
    if options.json is not None:
        values = {
            name: {"without": asdict(plain), "checkpointing": saving and asdict(saving)}
            for name, (plain, saving) in found.items()
        }
        plain_values = {"machine": facts, "batch": _BATCH, "size": options.size, "pairs": values}
        write_text_whole(options.json, json.dumps(plain_values, indent=1) + "\n")


if __name__ == "__main__":
    with clear_errors():
        main()
