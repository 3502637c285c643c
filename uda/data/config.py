"""Settings of the data a run trains on. Sizes are (height, width) in pixels."""

from dataclasses import dataclass

from uda.augmentation.policies import PolicyName
from uda.utilities.errors import require, require_share, require_size

MAX_SCALE = 100  # of an image's sides
_MAX_WORKERS = 1024  # processes


@dataclass(kw_only=True, slots=True)
class DomainConfig:
    """Images of one domain and how they are augmented."""

    datasets: tuple[str, ...]  # names of uda/data/registry.py; their images are joined
    splits: tuple[str, ...] = ("train",)
    first: int | None = None  # keep only the first N of the sorted list
    size: tuple[int, int] = (512, 1024)  # every image is resized to this ...
    scale: tuple[float, float] = (1.0, 1.0)  # ... times a random factor from this range
    # Images keep their shape: `size` is a box, upright or lying as the image is, and the image is
    # made as large as fits. What then is smaller than the crop is padded; see uda/data/transforms.
    keep_ratio: bool = False
    center_crop: bool = False  # crop the middle of the image, not a random place
    mirror: bool = False  # flip half of the samples left to right
    policy: PolicyName | None = (
        None  # of uda/augmentation/policies.py: distorts the look of every sample
    )
    # A crop is sampled again, up to ten times, until it has more distinct label values than this.
    crop_label_values: int = 0
    # Likewise until no class has more than this share of the crop's labeled pixels.
    crop_max_share: float = 1.0

    def check(self, path: str, *, crop: tuple[int, int]) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range or
        images may turn out smaller than `crop`."""
        low, high = self.scale
        require(
            0 < low <= high <= MAX_SCALE,
            f"{path}.scale is {self.scale}; allowed: 0 < lowest <= highest <= {MAX_SCALE}",
        )
        require_size(f"{path}.size", self.size)
        smallest = (round(self.size[0] * low), round(self.size[1] * low))
        require(
            self.keep_ratio or (crop[0] <= smallest[0] and crop[1] <= smallest[1]),
            f"data.crop {crop} does not fit {path}: images of {self.size} times {low} are "
            f"{smallest} (height, width)",
        )
        require(
            self.first is None or self.first > 0,
            f"{path}.first is {self.first}; allowed: none or at least 1",
        )
        require(
            self.crop_label_values >= 0,
            f"{path}.crop_label_values is {self.crop_label_values}; it must not be negative",
        )
        require_share(f"{path}.crop_max_share", self.crop_max_share)

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        if not self.center_crop:
            return {}
        names = ("crop_label_values", "crop_max_share")
        return dict.fromkeys(names, "with center_crop, no crop is chosen by its labels")

    @property
    def chooses_crops(self) -> bool:
        """Whether labels decide about crops."""
        return self.crop_label_values > 0 or self.crop_max_share < 1


@dataclass(kw_only=True, slots=True)
class SecondViewConfig:
    """Each target image once more, in a crop and mirrored state of its own."""

    policy: PolicyName | None = None  # as in DomainConfig; the domain's own is not applied


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a run trains on."""

    root: str = ""  # folder that holds the data sets; empty: the environment variable UDA_DATA
    source: DomainConfig | None = None  # images whose labels are learned from
    target: DomainConfig | None = None  # images without labels
    pseudo_labels: str | None = None  # folder of pseudo_label.py with labels for the target images
    # Read the target's own labels. The run then is a supervised one, and says so everywhere.
    target_ground_truth: bool = False
    second_target_view: SecondViewConfig | None = None
    # The log's C4: train ids taken for raw ids and mapped again, which leaves six wrong classes.
    pseudo_labels_mapped_twice: bool = False
    crop: tuple[int, int] = (360, 640)
    exclude: tuple[str, ...] = ()  # samples to leave out, as dataset/name, e.g. gta5/00042
    workers: int = 2  # loader processes; any number gives the same run

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require_size(f"{path}.crop", self.crop)
        require_workers(f"{path}.workers", self.workers)
        require(
            self.source is not None or self.target is not None,
            f"{path}.source and {path}.target are both none: there is nothing to train on",
        )
        if self.source is not None:
            self.source.check(f"{path}.source", crop=self.crop)
        if self.target is not None:
            self.target.check(f"{path}.target", crop=self.crop)
        require(
            self.pseudo_labels is None or not self.target_ground_truth,
            f"{path}.pseudo_labels and {path}.target_ground_truth are both set: target images have "
            "one kind of labels; choose",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = {}
        if self.pseudo_labels is None:
            found["pseudo_labels_mapped_twice"] = "there are no pseudo-labels"
        if self.target is not None and self.pseudo_labels is None and not self.target_ground_truth:
            reason = "target images have no labels to choose crops by"
            found |= dict.fromkeys(("target.crop_label_values", "target.crop_max_share"), reason)
        return found


def require_workers(name: str, workers: int) -> None:
    """Raises InputError unless so many loader processes can be started."""
    require(
        0 <= workers <= _MAX_WORKERS,
        f"{name} is {workers}; it must not be negative, nor above {_MAX_WORKERS}",
    )
