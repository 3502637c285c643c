"""Scores a snapshot: python eval_single.py --restore-from snapshots/RUN/GTA5_40000.pth"""

import argparse
import json
from functools import partial
from pathlib import Path

from experiments.published import print_comparison
from uda.cli import add_network_options, clear_errors, open_network, print_facts, print_scores
from uda.data.training import open_labeled_split
from uda.errors import InputError
from uda.evaluation import evaluate, protocol
from uda.reports import scores_json
from uda.tracking import progress_bar


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_network_options(parser)
    parser.add_argument("--split", help="of the data set (default: the snapshot's, usually val)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the scores here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with clear_errors():
        target = arguments.json
        if target is not None and (target.is_dir() or not target.parent.is_dir()):
            raise InputError(f"--json {target}: give a file in a folder that exists")
        network = open_network(arguments)
        space, config = network.snapshot.label_space, network.config
        config.split = arguments.split or config.split
        samples = open_labeled_split(network.root, config.dataset, config.split, label_space=space)
        scores = evaluate(
            network.segmenter,
            samples,
            config=config,
            label_space=space,
            workers=arguments.workers,
            progress=partial(progress_bar, total=len(samples), description="evaluate"),
        )
        facts = network.facts | {"protocol": protocol(config), "images": len(samples)}
        print_facts(facts)
        snapshot = network.snapshot
        facts |= print_comparison(scores, snapshot.preset, snapshot.step, config)
        print_scores(scores, space)
        if arguments.json is not None:
            text = json.dumps(scores_json(scores, space.report_names, **facts), indent=2)
            arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
