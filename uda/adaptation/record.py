"""adapt.json: what was asked for, what was done, and what came of it. The report is made of it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uda.adaptation.criteria import CRITERIA, Look
from uda.adaptation.stage import Images
from uda.adaptation.verdict import Verdict
from uda.prediction.opened import OpenedNetwork
from uda.prediction.side_by_side import FOLDER as PICTURES
from uda.utilities.atomic_files import PARTIAL, remove_partial, replacing
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import LARGE, read_bytes, why
from uda.utilities.sealed_json import sealed, unsealed

FORMAT = "uda adapt 1"
RECORD = "adapt.json"
ADAPTED = "adapted.pth"
_FREE = ("command", "workers")  # may differ when an adaptation is continued
_OTHER = "choose another folder with --output DIR"


@dataclass(slots=True)
class Record:
    """The record of one adaptation, written after every step of it."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path, settings: dict[str, Any]) -> "Record":
        """That of the folder, if it is of an adaptation with the same settings, or a new one;
        InputError when the folder holds anything else."""
        path = folder / RECORD
        new = cls(folder, {"format": FORMAT, "settings": settings, "stages": [], "warnings": []})
        if not path.exists():
            names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
            others = [name for name in names if not name.endswith(PARTIAL)]  # of a killed call
            require(not others, f"{folder} holds other files, such as {others[:1]}: {_OTHER}")
            new.write()
            return new
        try:
            values = unsealed(read_bytes(path, LARGE))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({why(error)}): {_OTHER}") from None
        require(
            isinstance(values, dict)
            and values.get("format") == FORMAT
            and isinstance(values.get("settings"), dict)
            and isinstance(values.get("stages"), list)
            and all(_is_stage(stage) for stage in values["stages"]),
            f"{path} is no record of this command, or damaged: {_OTHER}",
        )
        theirs = values["settings"]
        changed = [n for n in settings if settings[n] != theirs.get(n) and n not in _FREE]
        require(
            not changed,
            f"{folder} holds an adaptation with other values of {', '.join(changed)}: give the "
            f"same command to continue it, or {_OTHER}",
        )
        new.values["stages"] = values["stages"]
        for place in (folder, folder / PICTURES):
            remove_partial(place)
        return new

    def write(self) -> None:
        """Replaces the file."""
        content = sealed(self.values)
        with replacing(self.folder / RECORD) as file:
            file.write(content)

    def stage(self, number: int, name: str) -> dict[str, Any]:
        """The record of that stage, as an interrupted run has left it, or a new one."""
        stages: list[dict[str, Any]] = self.values["stages"]
        if len(stages) < number:
            stages.append({"name": name, "steps": 0})
        found = stages[number - 1]
        require(
            found["name"] == name,
            f"{self.folder} holds an adaptation whose stage {number} is {shown(found['name'])}, "
            f"not {name}: {_OTHER}",
        )
        return found

    def begun(
        self, look: Look, images: Images, network: OpenedNetwork, *, file: str, digest: str
    ) -> None:
        """Notes what is adapted, and to what."""
        space, sizes = network.snapshot.label_space, Counter(images.sizes)
        self.values |= {
            "network": {
                "file": file, "sha256": digest, "title": network.snapshot.preset,
                "classes": list(space.classes), "palette": [list(c) for c in space.palette],
                "supervision": network.snapshot.supervision,
            },
            "images": {
                "folder": images.name, "count": len(images.samples),
                "unreadable": images.unreadable,
                "sizes": {f"{w}x{h}": n for (h, w), n in sizes.most_common()},
                "looked_at": len(look.stems),
            },
            "criteria": {n: c._asdict() for n, c in CRITERIA.items()},
        }  # fmt: skip
        self.write()

    def warn(self, text: str) -> None:
        """Notes a warning for the report."""
        self.values["warnings"].append(text)


def _is_stage(value: object) -> bool:
    """Whether an adaptation can be continued from it."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("steps"), int)
        and value["steps"] >= 0
    )


def judged(before: Look, after: Look, verdict: Verdict, *, kept: bool) -> dict[str, Any]:
    """What a stage's record says of its result."""
    return {
        "before": before.values(), "after": after.values(),
        "verdict": verdict.word, "reasons": list(verdict.reasons), "kept": kept,
    }  # fmt: skip
