"""What the modules of a package define, so that a new file is found without being listed."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """The modules directly in `package`, imported, in the order of their names."""
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        if not module.ispkg:
            yield importlib.import_module(f"{package.__name__}.{module.name}")


def classes_of(package: ModuleType, base: type[T]) -> dict[str, type[T]]:
    """The subclasses of `base` that define `build`, by the name of their module, one in each.

    Classes without `build` of their own are there to inherit from.
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
    """The instances of `cls` at the top level of the modules of `package`, each once, in the order
    of module and line."""
    found: dict[int, T] = {}
    for module in modules_of(package):
        for value in vars(module).values():
            if isinstance(value, cls):
                found.setdefault(id(value), value)
    return list(found.values())
