"""Two steps of a small translation, and what they come to, in as many processes as there are.

    torchrun --nproc-per-node 2 tests/translation/translation_steps.py DATA OUTPUT

Run by test_translation_processes.py, which compares.
"""

import sys
from pathlib import Path

import torch

from small_translations import small
from uda.data.sampling import batches
from uda.translation.cut import Cut
from uda.translation.game import Game
from uda.translation.trainer import open_pairs, pair_of
from uda.utilities.distributed import is_main, mean_over_ranks, process_group

STEPS = 2


def steps_of(root: Path) -> dict[str, torch.Tensor]:
    """The weights after two steps with batches of two, and the mean losses of the last."""
    translation = small("toy_cut", root)
    translation.train.batch_size = 2
    torch.set_default_dtype(torch.float64)  # in float32, two equal ways to add up part
    game = Game(translation, images=6, device=torch.device("cpu"))
    torch.set_default_dtype(torch.float32)
    # Every patch counts, so that no process draws others.
    assert isinstance(game.method, Cut)
    game.method.config.patches = 10**6
    losses = {}
    dataset = open_pairs(translation)
    for batch in batches(dataset, batch_size=2, first_step=0, steps=STEPS, workers=0):
        pair = pair_of(batch, torch.device("cpu"))
        turn = game.play(pair._replace(source=pair.source.double(), target=pair.target.double()))
        losses = {name: mean_over_ranks(value) for name, value in turn.losses.items()}
    return {**losses, **game.method.state_dict()}


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        found = steps_of(Path(sys.argv[1]))
        if is_main():
            torch.save(found, sys.argv[2])
