"""`super()` in dataclasses with slots."""

from types import FunctionType


def rebind_super(cls: type) -> None:
    """Makes `super()` work in the methods of `cls`, to be called by `__init_subclass__`.

    `@dataclass(slots=True)` makes a second class with the methods of the first. There, `super()`
    still refers to the first class and raises TypeError (https://github.com/python/cpython/issues
    /90562, fixed in Python 3.14).
    """
    for member in vars(cls).values():
        methods = (member.fget, member.fset) if isinstance(member, property) else (member,)
        for method in methods:
            if isinstance(method, classmethod | staticmethod):
                method = method.__func__
            if isinstance(method, FunctionType) and "__class__" in method.__code__.co_freevars:
                index = method.__code__.co_freevars.index("__class__")
                assert method.__closure__ is not None
                method.__closure__[index].cell_contents = cls
