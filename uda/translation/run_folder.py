"""The folder of a translation's training: its lock, its settings, its resume.pth."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uda.checkpoints import snapshots
from uda.checkpoints.resume_files import newest_readable
from uda.data.used_files import StoredFiles, UsedFiles
from uda.training.run_plan import files_changed, opened_folder
from uda.translation.config import Translation
from uda.utilities.config_tree import differences, with_defaults
from uda.utilities.distributed import is_main
from uda.utilities.errors import InputError, require
from uda.utilities.schema import fault
from uda.utilities.tensor_values import require_finite
from uda.utilities.weight_files import read_weights

_FORMAT = "uda translation, to resume"
_FIELDS = {"translation", "samples", "state"}
# A resumed run may differ in these: they do not change the updates.
_FREE = ("data.root", "data.workers", "data.cache", "data.cache_gib", "train.log_every",
         "train.picture_every", "train.snapshot_every", "train.resume_every")  # fmt: skip


@dataclass(frozen=True, slots=True)
class TranslationFolder:
    """Where a run writes, and what its files say of it."""

    path: Path
    preset: str
    plain: dict[str, Any]  # the preset, plain values
    samples: str  # digest of the lists of images
    used: UsedFiles

    @property
    def resume(self) -> Path:
        return self.path / "resume.pth"

    @property
    def previous(self) -> Path:
        """What `resume` was before it was last replaced."""
        return self.path / "resume.previous.pth"

    def save_resume(self, state: Mapping[str, Any]) -> None:
        """Replaces resume.pth; the file before it becomes the previous one."""
        if is_main():
            values = {"format": _FORMAT, "translation": self.plain, "samples": self.samples,
                      "files": self.used.stored, "state": dict(state)}  # fmt: skip
            snapshots.save(values, self.resume, keep=self.previous)

    def resumed(
        self, translation: Translation, *, data_changed: bool = False
    ) -> dict[str, Any] | None:
        """The state to continue from; None where the run was killed before it had saved one.

        Raises InputError when there is no run here, or one of another preset or other images, or of
        images with other content unless `data_changed` allows it.
        """
        found = [path for path in (self.resume, self.previous) if path.exists()]
        if not found:
            require(
                any(self.path.glob("translation_*.pth")),
                f"{self.resume} does not exist: there is nothing to resume; omit --resume",
            )
            return None
        path, values = newest_readable(found, _read)
        stored = with_defaults(translation, values["translation"])
        changed = [n for n in differences(self.plain, stored) if not n.startswith(_FREE)]
        require(
            not changed,
            f"{path} was written with other values of {', '.join(changed)}: resume with the same "
            "preset and overrides, or start another run with --run NAME",
        )
        require(
            values["samples"] == self.samples,
            f"{path} was written with other images: restore the data as they were, or start "
            "another run with --run NAME",
        )
        files_changed(self.used, path, values.get("files"), allowed=data_changed)
        state: dict[str, Any] = values["state"]
        return state

    def opened(self, *, new: bool) -> AbstractContextManager[None]:
        """As `opened_folder`: a `new` run refuses the folder of another."""
        return opened_folder(self.path, self._refuse_if_used if new else None)

    def _refuse_if_used(self) -> None:
        require(
            not any(self.path.glob("*.pth")),
            f"{self.path} holds a run already: add --resume to continue it, or choose another "
            "folder with --run NAME",
        )


def _read(path: Path) -> dict[str, Any]:
    content = read_weights(
        path, expected="the resume.pth of a translation", instead="use the file that this run wrote"
    )
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path} is not of a translation: choose another folder with --run NAME")
    missing = sorted(_FIELDS - content.keys())
    require(not missing, f"{path} is damaged: it has no {', '.join(missing)}")
    require_finite(content["state"], path)
    wrong = fault(content["files"], StoredFiles, "files") if "files" in content else ""
    require(not wrong, f"{path} is damaged: {wrong}; use the file that this run wrote")
    return content
