"""What `--list` says of the presets of papers beside their descriptions: network and supervision.

Both take an import of torch to find out, so they are stored in listed.json. What is stored counts
while the text of this folder's files is what it was made from; otherwise the preset is made.
`python -m uda.experiments.listed` writes the file anew.
"""

import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from uda.experiments import PRESETS, Preset

if TYPE_CHECKING:
    from uda.experiment import Experiment

FILE = Path(__file__).with_name("listed.json")


class Listed(NamedTuple):
    """What has to be known of a paper's preset to choose it."""

    network: str
    supervision: str  # what labels of the target it learns from: none, pseudo, or ground truth


def listed_of(preset: Preset) -> Listed:
    """Of a preset of papers: what is stored or, where the files have changed, what it is."""
    known = stored().get(preset.name)
    return made(preset) if known is None else known


def made(preset: "Callable[[], Experiment]") -> Listed:
    """What the preset says itself."""
    experiment = preset()
    data = experiment.data
    learned = () if data.source is None else data.source.datasets
    targets = {experiment.evaluation.dataset, *(data.target.datasets if data.target else ())}
    supervision = "none" if data.pseudo_labels is None else "pseudo"
    if data.target_ground_truth or targets & set(learned):
        supervision = "ground truth"
    return Listed(experiment.model.title, supervision)


def _digest() -> str:
    """Of the text of all presets."""
    texts = (path.read_bytes() for path in sorted(FILE.parent.glob("*.py")))
    return sha256(b"\0".join(texts)).hexdigest()


@cache
def stored() -> dict[str, Listed]:
    """What listed.json holds, by name; nothing where it was made from other files."""
    content = json.loads(FILE.read_text("utf-8"))
    if content["digest"] != _digest():
        return {}
    return {name: Listed(*row) for name, row in content["presets"].items()}


def _content() -> dict[str, object]:
    """What listed.json has to hold."""
    papers = [p for p in PRESETS.values() if isinstance(p, Preset) and p.study.startswith("papers")]
    return {"digest": _digest(), "presets": {p.name: list(made(p)) for p in papers}}


if __name__ == "__main__":
    FILE.write_text(json.dumps(_content(), indent=1) + "\n", "utf-8")
