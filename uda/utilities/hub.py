"""Networks of the Hugging Face hub, where a user names one: hf://OWNER/NAME."""

import re
from pathlib import Path

from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.weight_files import reason

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "pytorch_model.bin",
          "model.safetensors.index.json")  # fmt: skip


def is_on_hub(path: Path) -> bool:
    """Whether it is hf://OWNER/NAME, of which a Path makes hf:/OWNER/NAME."""
    return path.parts[:1] == ("hf:",)


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
        return Path(hub.snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:  # of the hub's client, of HTTP or of the disk
        raise InputError(
            f"hf://{name} could not be downloaded ({reason(error)}): where there is a network, "
            f"`hf download {name} --local-dir DIR` does it; then give DIR"
        ) from error
