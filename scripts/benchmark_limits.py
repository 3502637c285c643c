"""What the machine itself can do: arithmetic and memory."""

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmark_report import Figure, Row

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure_limits(
    *, device: torch.device, rounds: int, quick: bool, say: Callable[[str], None]
) -> list[Row | Figure]:
    """A large matrix product in each precision, and a large copy."""
    side, size = (256, 2**24) if quick else (4096, 2**30)
    if device.type == "cuda" and not quick:
        side = 8192  # 4096 are done before all of a large GPU has begun
    products: dict[str, list[float]] = {name: [] for name in _PRECISIONS}
    copies = []
    for number in range(rounds):
        say(f"limits, round {number + 1}")
        for name, dtype in _PRECISIONS.items():
            matrix = torch.ones(side, side, dtype=dtype, device=device)
            seconds = _seconds(partial(torch.matmul, matrix, matrix), device)
            products[name].append(2 * side**3 / seconds / 1e9)
        old = torch.zeros(size, dtype=torch.uint8, device=device)
        new = torch.empty_like(old)
        copies.append(2 * size / _seconds(partial(new.copy_, old), device) / 1e9)
    return [
        Row(
            name="matrix product",
            case=f"{side}x{side}",
            unit="GFLOP/s",
            reference=products["float32"],
            ours=products["bfloat16"],
            meaning="bfloat16, and float32: what bfloat16 can bring at most.",
        ),
        Figure(
            name="copy",
            unit="GB/s",
            rounds=copies,
            meaning=f"{size / 2**20:g} MiB copied in memory; bytes read and bytes written count.",
        ),
    ]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call in the best of three times three, after one that warms up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    times = []
    for _ in range(3):
        wait()
        begin = time.perf_counter()
        for _ in range(3):
            work()
        wait()
        times.append((time.perf_counter() - begin) / 3)
    return min(times)
