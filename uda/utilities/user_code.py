"""Python files of the user, run as modules that can import their neighbors.

Such a file is a program: it can do whatever its user can. Only a file that the user names is run,
never one that a snapshot or another file names.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import TypedDict, TypeVar

from uda.utilities.errors import InputError, require, shortened, shown
from uda.utilities.reading import real

T = TypeVar("T")

_CODE = "__uda_user_code__"  # attribute of every module below: its UserCode
_FILE = "__uda_user_file__"  # its path, relative to the folder of the file that was run
_DIGITS = 12  # of a SHA-256, in messages and names


class StoredCode(TypedDict):
    """What a snapshot holds of the user's file that its classes come from."""

    path: str  # as the user gave it: a hint, never opened
    files: dict[str, str]  # SHA-256 of the file and of the neighbors it imported


class UserCode:
    """A file that has been run, and the neighbors that it has imported."""

    def __init__(self, path: Path) -> None:
        """Use `run_file`."""
        self.path = path
        self.folder = real(path).parent
        self.files: dict[str, str] = {}
        self.modules: list[ModuleType] = []
        content = path.read_bytes()
        key = f"{real(path)}\n{hashlib.sha256(content).hexdigest()}"
        # One name for one content of one file: annotations are looked up by it.
        self.name = f"uda_user_code_{hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]}"
        module = ModuleType(f"{self.name}_{path.stem}")
        module.__file__ = str(path.absolute())
        self.call(lambda: self.execute(module, path.name, content))

    @property
    def module(self) -> ModuleType:
        """That of the file itself."""
        return self.modules[0]

    def execute(self, module: ModuleType, file: str, content: bytes) -> None:
        """Runs the `content` of `file`, relative to the folder, as `module`."""
        self.files[file] = hashlib.sha256(content).hexdigest()
        self.modules.append(module)
        setattr(module, _CODE, self)
        setattr(module, _FILE, file)
        sys.modules[module.__name__] = module
        code = compile(content, str(module.__file__), "exec", dont_inherit=True)
        exec(code, vars(module))

    def call(self, function: Callable[[], T]) -> T:
        """What `function` of this code returns; it may import neighbors.

        Raises InputError, naming file and line, when it fails.
        """
        _NEIGHBORS.activate(self)
        try:
            return function()
        except SyntaxError as error:
            file = self._shown(error.filename or "")
            raise InputError(f"{file}, line {error.lineno}: {error.msg}: fix it") from error
        except (Exception, SystemExit) as error:  # it is the author's program: anything can happen
            places = [
                f"{self._shown(frame.filename)}, line {frame.lineno}"
                for frame in extract_tb(error.__traceback__)
                if self._relative(frame.filename) in self.files
            ]
            where = places[-1] if places else str(self.path)
            what = shortened(" ".join(str(error).split()), 200)
            raise InputError(f"{where}: {type(error).__name__}: {what}: fix it") from error

    def unchanged(self) -> bool:
        """Whether the files on disk are those that were run."""
        paths = {name: self.folder / name for name in self.files} | {self.path.name: self.path}
        try:
            return self.files == {name: _digest(path) for name, path in paths.items()}
        except OSError:
            return False

    def stored(self) -> StoredCode:
        """What snapshots hold of it."""
        return StoredCode(path=str(self.path), files=dict(self.files))

    def find(self, name: str, kind: type[T]) -> type[T]:
        """The class that `class_name` called `name`, wherever in the code it is now.

        Raises InputError when there is none."""
        bare = name.rpartition(":")[2]
        found = [
            value
            for module in self.modules
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, kind) and value.__name__ == bare
        ]
        require(bool(found), f"{self.path} has no {kind.__name__} of the name {shown(bare)}")
        return next((cls for cls in found if class_name(cls) == name), found[0])

    def _relative(self, filename: str) -> str:
        try:
            return real(Path(filename)).relative_to(self.folder).as_posix()
        except (OSError, ValueError):
            return ""

    def _shown(self, filename: str) -> str:
        """A file of this code by the folder's path as the user gave it."""
        relative = self._relative(filename)
        return str(self.path if relative in ("", self.path.name) else self.path.parent / relative)


class _Loader(SourceFileLoader):
    """Runs a neighbor; neither reads nor leaves bytecode."""

    def __init__(self, name: str, path: str, code: UserCode) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        file = Path(self.path).relative_to(self._code.folder).as_posix()
        module.__name__ = f"{self._code.name}_{self.name}"  # two folders may have an equal one
        self._code.execute(module, file, Path(self.path).read_bytes())


class _Neighbors(MetaPathFinder):
    """Finds modules next to the files that were run, those of the latest first, without sys.path.
    As for a script, they come before installed ones."""

    def __init__(self) -> None:
        self._codes: list[UserCode] = []

    def activate(self, code: UserCode) -> None:
        """From now on names mean the neighbors of `code`."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        importlib.invalidate_caches()  # a neighbor may have been written just now
        if self._codes[:1] == [code]:
            return
        self._codes = [code, *(c for c in self._codes if c is not code)]
        for name, module in list(sys.modules.items()):
            if hasattr(module, _CODE) and name != module.__name__:
                del sys.modules[name]
        for module in code.modules[1:]:
            assert module.__spec__ is not None
            sys.modules[module.__spec__.name] = module

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        first = name.partition(".")[0]
        if first == "uda" or first in sys.stdlib_module_names:
            return None
        for code in self._codes:
            places = [str(code.folder)] if path is None else _below(code.folder, path)
            spec = PathFinder.find_spec(name, places) if places else None
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                spec.loader = _Loader(name, spec.loader.path, code)
                return spec
            if (
                spec is not None
                and spec.loader is None
                and PathFinder.find_spec(name, path) is None
            ):
                return spec  # a folder without __init__.py, where nothing else has the name
        return None


_NEIGHBORS = _Neighbors()
_RUN: dict[Path, UserCode] = {}


def run_file(path: Path) -> UserCode:
    """Runs the file, unless it and its neighbors were run as they are now.

    Raises InputError when it is not a file or fails, naming the line.
    """
    try:
        known = _RUN.get(real(path))
        if known is None or not known.unchanged():
            known = _RUN[real(path)] = UserCode(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}: give a Python file") from error
    return known


def class_name(cls: type) -> str:
    """The class's name as files hold it; with its file's where that is the user's:
    "study.py:Wide"."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, _FILE, "")
    if cls.__module__ == "__main__":
        file = Path(getattr(module, "__file__", None) or "").name
    return f"{file}:{cls.__name__}" if file else cls.__name__


def is_user_class(name: object) -> bool:
    """Whether `class_name` gave that name to a class of a user's file."""
    return isinstance(name, str) and ".py:" in name


def stored_code(config: object) -> StoredCode | None:
    """The user's file that classes in a tree of dataclasses come from; none if none does.

    Raises InputError when they come from two.
    """
    found: dict[str, StoredCode] = {}
    for cls in _classes(config):
        module = sys.modules.get(cls.__module__)
        code = getattr(module, _CODE, None)
        if isinstance(code, UserCode):
            found[str(code.path)] = code.stored()
        elif cls.__module__ == "__main__" and (file := getattr(module, "__file__", None)):
            found[file] = StoredCode(path=file, files={Path(file).name: _digest(Path(file))})
    require(
        len(found) < 2,
        f"the experiment has classes of two files, {' and '.join(found)}: let one import the other",
    )
    return next(iter(found.values()), None)


def code_changes(before: StoredCode | None, now: StoredCode | None) -> list[str]:
    """What differs, file by file: "study.py (sha256 before 0123, now 4567)"."""
    old, new = (code["files"] if code is not None else {} for code in (before, now))
    return [
        f"{shown(name)} (sha256 before {_short(old, name)}, now {_short(new, name)})"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _short(files: Mapping[str, str], name: str) -> str:
    return shortened(files[name][:_DIGITS]) if name in files else "none"


def _classes(config: object) -> Iterator[type]:
    """The classes of all dataclasses in the tree."""
    if isinstance(config, dict):
        for member in config.values():
            yield from _classes(member)
    elif is_dataclass(config):
        yield type(config)
        for field in fields(config):
            yield from _classes(getattr(config, field.name))


def _below(folder: Path, places: Sequence[str]) -> list[str]:
    return [place for place in places if Path(place).is_relative_to(folder)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
