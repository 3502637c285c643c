"""Write pseudo-labels of target images: %(prog)s --restore-from FILE --threshold 0.5"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands import choices
from uda.commands.endings import clear_errors, print_facts
from uda.commands.ensembles import add_ensemble_options, networks_from
from uda.commands.options import add_network_options, at_least, new_parser

if TYPE_CHECKING:
    from uda.prediction.labeling_rules import Rule


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    labels = parser.add_argument_group("pseudo-labels")
    labels.add_argument(
        "--rule", choices=choices.RULES, default="fixed",
        help="which pixels get a label: fixed: those from --threshold on; cbst, quantile: each "
        "class has a threshold from its probabilities in all images, which are predicted twice; "
        "iast: each class has one that follows the images in their order (default: fixed)",
    )  # fmt: skip
    defaults = {name: value for rule in choices.RULES.values() for name, value in rule.items()}
    for name, metavar, kind, text in (
        ("threshold", "P", float, "fixed: leave pixels below this softmax probability unlabeled "
         "(0 labels all)"),
        ("portion", "SHARE", float, "cbst: of each class's pixels that reach its threshold"),
        ("quantile", "SHARE", float, "quantile: of each class's pixels that lie below it"),
        ("cap", "P", float, "quantile: the highest threshold"),
        ("start", "P", float, "iast: the thresholds before the first image"),
        ("alpha", "A", float, "iast: of a class at threshold t, the share A * t^G counts"),
        ("beta", "B", float, "iast: the share of a threshold that stays"),
        ("gamma", "G", float, "iast: see --alpha"),
        ("images", "N", at_least(1), "iast: images that move the thresholds together"),
    ):  # fmt: skip
        default = defaults[name]
        shown = "" if default is None else f" (default: {default})"
        labels.add_argument(f"--{name}", metavar=metavar, type=kind, help=text + shown)
    labels.add_argument(
        "--output", metavar="DIR", type=Path, help="default: pseudo_labels/ next to FILE"
    )
    labels.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: the snapshot's")
    labels.add_argument(
        "--score", action="store_true",
        help="also score the labels against the target's ground truth, which is not opened "
        "otherwise; a threshold chosen by these scores is chosen with labels",
    )  # fmt: skip
    labels.add_argument("--first", type=at_least(1), metavar="N", help="only the first N images")
    add_network_options(parser)
    add_ensemble_options(parser)
    parsed = parser.parse_args(arguments)
    own = choices.RULES[parsed.rule]
    given = [n for n in _settings() if getattr(parsed, n) is not None]
    for name in given:
        if name not in own:
            parser.error(
                f"--rule {parsed.rule} does not use --{name}: omit it, or choose --rule "
                f"{_settings()[name]}"
            )
    if parsed.rule == "fixed" and parsed.threshold is None:
        parser.error(
            "--rule fixed needs --threshold P, the lowest probability that gives a label: "
            "--threshold 0.5"
        )
    parsed.settings = {name: getattr(parsed, name) for name in given}
    return parsed


def _settings() -> dict[str, str]:
    """The rule of each option that only one rule has."""
    return {setting: name for name, rule in choices.RULES.items() for setting in rule}


def rules() -> "dict[str, type[Rule]]":
    """The rules by name."""
    from uda.prediction.labeling_rules import (
        ClassBalanced,
        FixedThreshold,
        InstanceAdaptive,
        Quantile,
    )

    return {
        "fixed": FixedThreshold,
        "cbst": ClassBalanced,
        "quantile": Quantile,
        "iast": InstanceAdaptive,
    }


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    from uda.prediction.pseudo_labeling import label_images, labeling_report, list_target
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import device_named, own_share, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        folder = arguments.output or arguments.restore_from.parent / "pseudo_labels"
        network = networks_from(arguments, device, target=True)
        samples = list_target(
            network.snapshot,
            network.configured_root,
            splits=arguments.splits,
            first=arguments.first,
            labeled=arguments.score,
        )
        result = label_images(
            network.network,
            samples,
            folder,
            rule=rules()[arguments.rule](**arguments.settings),
            config=network.config,
            label_space=network.snapshot.label_space,
            snapshot=[arguments.restore_from, *arguments.others],
            supervision=str(network.facts["supervision"]),
            workers=arguments.workers,
            progress=partial(progress_bar, total=len(own_share(samples)), description="label"),
        )
        facts = {"protocol": result.manifest.protocol, "images": len(samples), "folder": folder}
        print_facts(network.facts | facts)
        names = network.snapshot.label_space.report_names
        print(labeling_report(result, names))
