"""What a process does with memory that tensors gave back: seen from outside, in a process."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from uda.utilities.host_memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(20):  # the C library lays its memory out
    torch.empty(2**24).fill_(1)
before = faults()
for _ in range(8):
    torch.empty(2**24).fill_(1)
print(kept, faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what is told")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    found = {}
    for way in ("keep", "as it comes"):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, way], check=True, capture_output=True, text=True
        )
        kept, faults = done.stdout.split()
        found[kept] = int(faults)
    # A pass over 64 MiB is 16384 pages, eight of them are 131072.
    assert found["None"] > 100_000
    if "True" in found:  # else: a C library without mallopt, as on Alpine Linux
        assert found["True"] < 1_000
