"""What `--help` and `--list` say without importing torch is what the library says."""

import subprocess
import sys
from dataclasses import MISSING, fields
from importlib import import_module
from typing import get_args

from uda.adaptation.method import methods
from uda.adaptation.request import AUTO, AUTOMATIC
from uda.augmentation.fourier import Window
from uda.commands import choices
from uda.commands.label import rules
from uda.commands.main import _DATA, _NETWORKS, _RESULTS, _TRANSLATIONS
from uda.data.transforms import Interpolation
from uda.data.translated_folder import PictureFormat
from uda.evaluation import report_formats
from uda.evaluation.boundaries import DEFAULT_RATIO
from uda.evaluation.ensembles import Average
from uda.evaluation.named_measures import MEASURES
from uda.evaluation.protocols import PROTOCOLS, Precision
from uda.experiments import PRESETS, STUDIES, Preset, listed
from uda.experiments.by_path import presets_of
from uda.experiments.listed import list_presets
from uda.prediction import cross_domain, portable_formats
from uda.prediction.export import EXPORTS
from uda.prediction.portable_network import INPUTS, OUTPUTS
from uda.prediction.test_time import RATE, Method, Mode
from uda.prediction.writer import KINDS
from uda.translation.color_statistics import Match
from uda.utilities.safetensors_files import SUFFIX

import pytest  # isort: skip

COMMANDS = [c.module for c in (_NETWORKS | _TRANSLATIONS | _RESULTS).values()]
COMMANDS += [c.module for c in _DATA.values()]
LIGHT = """
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from uda.experiments.listed import list_presets
with redirect_stdout(StringIO()):
    list_presets()
    for name in sys.argv[1:]:
        with suppress(SystemExit):
            import_module(f"uda.commands.{name}").main(["--help"])
print(*({"torch", "torchvision", "scipy", "tensorboard"} & sys.modules.keys()))
"""


def test_options_allow_what_the_library_knows() -> None:
    assert tuple(PROTOCOLS) == choices.PROTOCOLS
    assert get_args(Interpolation) == choices.INTERPOLATIONS
    assert get_args(Precision) == choices.PRECISIONS
    assert get_args(Average) == choices.AVERAGES
    assert tuple(report_formats.FORMATS) == choices.SCORE_FORMATS
    assert tuple(cross_domain.FORMATS) == choices.CROSS_DOMAIN_FORMATS
    assert tuple(MEASURES) == choices.MEASURES
    assert DEFAULT_RATIO == choices.BOUNDARY_RATIO
    assert EXPORTS == choices.SERVERS
    assert tuple(KINDS) == choices.PICTURES
    assert (get_args(Method), get_args(Mode)) == (
        choices.TEST_TIME_METHODS,
        choices.TEST_TIME_MODES,
    )
    assert RATE == choices.TEST_TIME_RATE
    assert tuple(portable_formats.FORMATS) == choices.FILE_FORMATS
    assert (tuple(INPUTS), tuple(OUTPUTS)) == (choices.PIXELS, choices.OUTPUTS)
    assert (get_args(Match), get_args(Window)) == (choices.MATCHES, choices.WINDOWS)
    assert get_args(PictureFormat) == choices.PICTURE_FORMATS
    assert SUFFIX == choices.SAFETENSORS
    assert (AUTO, AUTOMATIC) == (choices.AUTO, choices.AUTOMATIC)
    own = [name for name, method in methods().items() if not method.needs_source]
    assert own == choices.adaptation_methods()


def test_options_of_pseudo_labels_are_the_settings_of_the_rules() -> None:
    assert {
        name: {f.name: None if f.default is MISSING else f.default for f in fields(rule)}
        for name, rule in rules().items()
    } == choices.RULES


def test_presets_read_from_the_text_are_those_of_the_modules() -> None:
    for name, study in STUDIES.items():
        module = import_module(f"uda.experiments.{name}")
        assert [preset.name for preset in study.presets] == list(presets_of(module))


def test_what_is_stored_of_presets_of_papers_is_what_they_are() -> None:
    """If it is not: python -m uda.experiments.listed"""
    papers = [p for p in PRESETS.values() if isinstance(p, Preset) and "papers_" in p.study]
    stored = listed.stored()
    assert {preset.name: listed.made(preset) for preset in papers} == stored


def test_changed_presets_are_listed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list_presets()
    monkeypatch.setattr(listed, "stored", dict)  # as when a file of presets has changed
    assert list_presets() == before


def test_help_and_list_do_not_import_torch() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LIGHT, *COMMANDS], capture_output=True, text=True, check=True
    )
    assert found.stdout == "\n"
