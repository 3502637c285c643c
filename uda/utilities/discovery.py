"""What the files of a folder define: so a new file needs no other to know of it."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """The modules directly in `package`, imported, by name."""
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        if not module.ispkg:
            yield importlib.import_module(f"{package.__name__}.{module.name}")


def classes_of(package: ModuleType, base: type[T]) -> dict[str, type[T]]:
    """The classes below `base` that say how they are built, by the name of their module, one each.

    Such a class defines `build`; the others are there to inherit from.
    """
    found: dict[str, type[T]] = {}
    for module in modules_of(package):
        name = module.__name__.rpartition(".")[2]
        for cls in vars(module).values():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and cls is not base and issubclass(cls, base) and "build" in vars(cls):
                assert name not in found, f"{module.__name__}: one {base.__name__} in each file"
                found[name] = cls
    return found


def instances_of(package: ModuleType, cls: type[T]) -> list[T]:
    """The values of class `cls` that the modules of `package` hold at their top level, each once,
    in the order of module and line."""
    found: dict[int, T] = {}
    for module in modules_of(package):
        for value in vars(module).values():
            if isinstance(value, cls):
                found.setdefault(id(value), value)
    return list(found.values())
