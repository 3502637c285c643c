"""adapt.json, which says what an adaptation did: read and checked like any file from outside."""

from pathlib import Path
from typing import Any, TypedDict

from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import read_bytes, real, why
from uda.utilities.schema import fault
from uda.utilities.sealed_json import unsealed

NAME = "adapt.json"
FORMAT = "uda adapt 1"
_LARGEST = 16 * 2**20  # bytes of the file: 20,000 pictures
_VERDICTS = {"better", "unclear", "worse"}
_OUTCOMES = {"adapted", "kept"}

Number = float | int
Values = dict[str, Number | None]


class Network(TypedDict):
    file: str
    sha256: str
    title: str
    classes: list[str]
    palette: list[list[int]]
    supervision: str


class Images(TypedDict):
    folder: str
    count: int
    unreadable: dict[str, str]
    sizes: dict[str, int]
    looked_at: int


class Settings(TypedDict):
    methods: list[str]
    minutes: Number | None
    seed: int
    source: str | None
    command: str


class Stage(TypedDict):
    name: str
    did: str
    steps: int
    seconds: Number
    snapshot: str | None
    before: Values
    after: Values
    verdict: str
    reasons: list[str]
    kept: bool


class Criterion(TypedDict):
    title: str
    highest: bool
    about: str


class Shares(TypedDict):
    old: list[Number]
    new: list[Number]


class Score(TypedDict):
    miou: Number | None
    ious: Values


class Scores(TypedDict):
    dataset: str
    protocol: str
    old: Score
    new: Score


class PictureFiles(TypedDict):
    image: str
    changed: Number
    before: str
    after: str
    photo: str


class Adaptation(TypedDict):
    """The content of adapt.json; see `uda adapt`. Scores are in percent, shares from 0 to 1."""

    network: Network
    images: Images
    settings: Settings
    stages: list[Stage]
    criteria: dict[str, Criterion]
    outcome: str
    why: list[str]
    warnings: list[str]
    shares: Shares
    scores: Scores | None
    pictures: list[PictureFiles]
    undo: str


def read_adaptation(folder: Path) -> Adaptation:
    """What the adapt.json in `folder` says. More entries are allowed.

    Raises InputError, naming the file and the entry, when it is missing, damaged or of another
    version, or when a picture in it is not below `folder`.
    """
    path = folder / NAME
    try:
        values = unsealed(read_bytes(path, _LARGEST))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {NAME}: give the output folder of an adaptation (uda adapt)"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(_damaged(path, why(error))) from None
    given = values.get("format") if isinstance(values, dict) else None
    require(
        given == FORMAT,
        f"{path} has the format {shown(given)}; allowed: {FORMAT!r}: write it again with this "
        "version of uda adapt",
    )
    wrong = fault(values, Adaptation) or _inconsistency(values)
    require(not wrong, _damaged(path, wrong))
    for picture in values["pictures"]:
        for name in ("before", "after", "photo"):
            inside = _is_below(folder, picture[name])
            require(inside, _damaged(path, f"{shown(picture[name])} is not below its folder"))
    found: Adaptation = values
    return found


def _inconsistency(values: dict[str, Any]) -> str:
    """What does not fit together, in words; empty when everything does."""
    network, shares = values["network"], values["shares"]
    count = len(network["classes"])
    if any(len(color) != 3 or max(color) > 255 for color in network["palette"]):
        return "network.palette has a color that is not three numbers from 0 to 255"
    for name, of_classes in {"network.palette": network["palette"], "shares.old": shares["old"],
                             "shares.new": shares["new"]}.items():  # fmt: skip
        if len(of_classes) != count:
            return f"{name} has {len(of_classes)} entries for {count} classes"
    if values["outcome"] not in _OUTCOMES:
        return f"outcome is {shown(values['outcome'])}; allowed: {', '.join(sorted(_OUTCOMES))}"
    verdicts = (stage["verdict"] for stage in values["stages"])
    odd = next((verdict for verdict in verdicts if verdict not in _VERDICTS), None)
    if odd is not None:
        return f"a verdict is {shown(odd)}; allowed: {', '.join(sorted(_VERDICTS))}"
    numbers = [*shares["old"], *shares["new"], *(p["changed"] for p in values["pictures"])]
    return "" if all(0 <= share <= 1 for share in numbers) else "a share is not from 0 to 1"


def _is_below(folder: Path, name: str) -> bool:
    """Whether `name` is that of a place in `folder`, links followed."""
    try:
        return real(folder / name).is_relative_to(real(folder))
    except (OSError, ValueError, RuntimeError):  # a NUL, a link to itself
        return False


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}): adapt again, or restore the file"
