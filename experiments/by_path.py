"""Presets in files of your own: `--preset study.py:wide`, or `study.py` if it holds one only.

Such a file is a program, and it is run: everything in it can do what you can do. Use only files
that you have read. Nothing else is executed; snapshots, manifests and images are not.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from uda.experiment import Experiment
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require
from uda.utilities.user_code import run_file


def presets_of(module: ModuleType) -> dict[str, Callable[[], Experiment]]:
    """The module's public functions without parameters, in the order they are written."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.signature(function).parameters
    }


def is_path(preset: str) -> bool:
    """Whether `preset` means a file, not a name of ours."""
    return preset.endswith(".py") or ".py:" in preset


def preset_from_file(preset: str) -> Experiment:
    """What the function of `FILE.py:NAME`, or the only one of `FILE.py`, returns.

    Raises InputError when there is no such file or function, when the file's code fails, naming
    its line, or when the function does not return an Experiment.
    """
    file, _, name = (preset, "", "") if preset.endswith(".py") else preset.rpartition(":")
    path = Path(file)
    require(path.is_file(), f"--preset {preset}: {file} is not a file; write FILE.py:NAME")
    code = run_file(path)
    presets = presets_of(code.module)
    if not name:
        require(
            len(presets) == 1,
            f"--preset {preset}: {file} has {len(presets)} functions without parameters"
            f"{': ' + ', '.join(presets) if presets else ''}; write {file}:NAME",
        )
        name = next(iter(presets))
    if name not in presets:
        known = suggest(name, presets) if presets else "it has no function without parameters"
        raise InputError(f"--preset {preset}: {file} has no preset {name!r}; {known}")
    made: object = code.call(presets[name])
    require(
        isinstance(made, Experiment),
        f"--preset {preset}: {name}() returned a {type(made).__name__}; allowed: an Experiment of "
        "uda/experiment.py",
    )
    assert isinstance(made, Experiment)
    return made
