"""The Hugging Face hub: networks that a user names, hf://OWNER/NAME, and what to do without it."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.weight_files import reason

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
_PATIENCE = 5.0  # seconds
_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "pytorch_model.bin",
          "model.safetensors.index.json")  # fmt: skip


def is_on_hub(path: Path) -> bool:
    """Whether it is hf://OWNER/NAME, of which a Path makes hf:/OWNER/NAME."""
    return path.parts[:1] == ("hf:",)


@contextmanager
def without_retries() -> Iterator[None]:
    """Inside, where the hub cannot be reached, its client takes what it has downloaded earlier or
    fails at once; by itself it tries for a minute and longer, file by file."""
    try:
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    """Whether a connection to the address can be made; True where a proxy would make it."""
    parts = urlsplit(address)
    if getproxies():
        return True
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def by_hand(repository: str, file: str, option: str) -> str:
    """What to do where a file of the hub cannot be downloaded."""
    return (
        f"where there is a network, `hf download {repository} {file} --local-dir DIR` does it; "
        f"then use --set {option}=DIR/{file}, or --set {option}=none"
    )


def downloaded(path: Path) -> Path:
    """The folder, in the hub's cache, of the network that `path` names; it is downloaded if need
    be, settings and weights only.

    Raises InputError when the name is none, a package is missing, or the hub cannot be reached.
    """
    names = path.parts[1:]
    require(
        len(names) == 2 and all(_NAME.fullmatch(name) for name in names),
        f"{shown(str(path))}: give hf://OWNER/NAME",
    )
    name = "/".join(names)
    hub = require_extra("hub", needed_by=f"hf://{name}")
    try:
        with without_retries():
            return Path(hub.snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:  # of the hub's client, of HTTP or of the disk
        raise InputError(
            f"hf://{name} could not be downloaded ({reason(error)}): where there is a network, "
            f"`hf download {name} --local-dir DIR` does it; then give DIR"
        ) from error
