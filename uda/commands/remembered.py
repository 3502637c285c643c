"""What `--help` and `--list` print, remembered: importing torch to print it takes seconds.

A text is printed again only as long as no file of the library has changed.
"""

import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError
from uda.utilities.reading import SMALL, read_bytes
from uda.utilities.sealed_json import sealed, unsealed
from uda.utilities.user_cache import cache_file

_TEXTS = ("--help", "-h", "--list")  # alone, they depend on nothing but the library
_PACKAGE = Path(__file__).resolve().parent.parent


def with_memory(
    main: Callable[[], int], module: str, arguments: Sequence[str] | None, prog: str | None
) -> int:
    """What `main`, the command in `uda.commands.<module>`, prints for `arguments`, and its status:
    from memory where they ask for a text that is known, else by calling it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1 or given[0] not in _TEXTS:
        return main()
    program = prog or Path(sys.argv[0]).name
    path, key = _place(f"{program} {module} {given[0]}"), _key(given[0], program)
    text = "" if path is None else _known(path, key)
    if not text:
        text, status = _printed(main)
        if status:
            return status
        if path is not None:
            with suppress(InputError, OSError), replacing(path) as file:  # then it is made again
                file.write(sealed({"key": key, "text": text}))
    sys.stdout.write(text)
    return 0


def _place(name: str) -> Path | None:
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
    try:
        return cache_file(f"text_{digest[:12]}.json")
    except InputError:  # a cache folder that cannot be; whoever needs it will say so
        return None


def _known(path: Path, key: str) -> str:
    with suppress(OSError, ValueError):
        found = unsealed(read_bytes(path, SMALL))
        if isinstance(found, dict) and found.get("key") == key:
            return str(found.get("text", ""))
    return ""


def _printed(main: Callable[[], int]) -> tuple[str, int]:
    """What `main` prints, and its status; what it printed before a failure is printed."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            status = main()
    except SystemExit as end:
        if end.code:
            sys.stdout.write(printed.getvalue())
            raise
        status = 0
    return printed.getvalue(), status


def _key(option: str, program: str) -> str:
    """Changes when anything does that a text depends on: the files of the library, the width of
    the terminal, the name of the program."""
    width = shutil.get_terminal_size().columns
    found = hashlib.sha256(f"{option} {program} {width} {sys.version}".encode(errors="replace"))
    for line in sorted(_stamps(_PACKAGE)):
        found.update(line.encode(errors="replace"))
    return found.hexdigest()


def _stamps(folder: Path) -> Iterator[str]:
    """Name, size and time of every file of the library; `uda/experiments` may be a link."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and entry.name != "__pycache__":
                yield from _stamps(Path(entry.path))
            elif entry.name.endswith((".py", ".json")):
                found = entry.stat()
                yield f"{entry.path} {found.st_size} {found.st_mtime_ns}\n"
