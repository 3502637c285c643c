"""A Cityscapes image through ResNet-101 fits into a small machine's memory."""

import subprocess
import sys

import pytest

from tiny_runs import REPOSITORY

LIMIT = 6 * 2**30  # bytes, everything that the process holds at its worst

SCRIPT = """
import resource
import torch
from uda.evaluation.inference import predict
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.evaluation.protocols import PROTOCOLS

network = {network}(backbone="resnet101", backbone_weights="none").build(19).eval()
protocol = PROTOCOLS["{protocol}"]
height, width = protocol.input_size or (1024, 2048)
images = [
    torch.zeros(3, round(height * scale), round(width * scale), dtype=torch.uint8)
    for scale in protocol.scales
]
found = predict(network, images, size=(1024, 2048), protocol=protocol, confidence=True)
assert found.labels.shape == found.confidence.shape == (1024, 2048)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "protocol"), [("DeepLabV3PlusConfig", "native"), ("DeepLabV2Config", "mrnet")]
)
def test_one_full_size_image_needs_less_than_six_gibibytes(network: str, protocol: str) -> None:
    program = SCRIPT.format(network=network, protocol=protocol)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert 2**29 < int(done.stdout) < LIMIT
