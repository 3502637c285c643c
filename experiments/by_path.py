"""Presets in files of your own: `--preset study.py:wide`, or `study.py` if it holds one only.

Such a file is a program, and it is run: everything in it can do what you can do. So give none that
you have not read. This is the only input that is executed; snapshots, manifests and images are not.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from uda.experiment import Experiment
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shortened


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
    its line, or when what comes back is no Experiment.
    """
    file, _, name = (preset, "", "") if preset.endswith(".py") else preset.rpartition(":")
    path = Path(file)
    require(path.is_file(), f"--preset {preset}: there is no file {file}; write FILE.py:NAME")
    presets = presets_of(_run(path))
    if not name:
        require(
            len(presets) == 1,
            f"--preset {preset}: {file} holds {len(presets)} functions without parameters"
            f"{': ' + ', '.join(presets) if presets else ''}; write {file}:NAME",
        )
        name = next(iter(presets))
    if name not in presets:
        known = suggest(name, presets) if presets else "no function without parameters is there"
        raise InputError(f"--preset {preset}: {file} has no preset {name!r}; {known}")
    made = _guarded(presets[name], path)
    require(
        isinstance(made, Experiment),
        f"--preset {preset}: {name}() returned a {type(made).__name__}; allowed: an Experiment of "
        "uda/experiment.py",
    )
    assert isinstance(made, Experiment)
    return made


def _run(path: Path) -> ModuleType:
    """The module that the file makes; no bytecode is left beside it."""
    module = ModuleType(f"preset_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up the names in annotations
    _guarded(lambda: exec(compile(path.read_bytes(), str(path), "exec"), vars(module)), path)
    return module


def _guarded(call: Callable[[], object], path: Path) -> object:
    try:
        return call()
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}: mend the preset") from error
    except (Exception, SystemExit) as error:  # it is the author's program: anything can happen
        lines = [f.lineno for f in extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        what = shortened(" ".join(str(error).split()), 200)
        raise InputError(f"{path}{where}: {type(error).__name__}: {what}: mend it") from error
