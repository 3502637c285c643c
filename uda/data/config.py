"""Settings of the data a run trains on. Sizes are (height, width) in pixels."""

from dataclasses import dataclass
from typing import Literal

from uda.augmentation.policies import PolicyName
from uda.utilities.errors import MOST_WORKERS, require, require_share, require_size

MAX_SCALE = 100  # of an image's sides
_MOST_TRIES = 1000
_LOWEST_TEMPERATURE = 1e-6  # below, one class would be chosen always


@dataclass(kw_only=True, slots=True)
class DomainConfig:
    """Images of one domain and how they are augmented."""

    datasets: tuple[str, ...]  # names of uda/data/registry.py
    # How often samples are of each of them, one number per data set; none: by their images, which
    # are joined. A pass over one data set then is a pass over its images only.
    weights: tuple[float, ...] | None = None
    splits: tuple[str, ...] = ("train",)
    first: int | None = None  # keep only the first N of the sorted list
    size: tuple[int, int] = (512, 1024)  # every image is resized to this ...
    scale: tuple[float, float] = (1.0, 1.0)  # ... times a random factor from this range
    # Images keep their shape: `size` is a box, upright or lying as the image is, and the image is
    # made as large as fits. What then is smaller than the crop is padded; see uda/data/transforms.
    keep_ratio: bool = False
    # How images are resized; labels always by nearest. Pillow's bicubic and bilinear filters grow
    # as an image shrinks, OpenCV's bilinear, "bilinear_no_antialias", does not.
    interpolation: Literal["bicubic", "bilinear", "bilinear_no_antialias"] = "bicubic"
    crop: tuple[int, int] | None = None  # of this domain; none: DataConfig.crop
    center_crop: bool = False  # crop the middle of the image, not a random place
    mirror: bool = False  # flip half of the samples left to right
    policy: PolicyName | None = (
        None  # of uda/augmentation/policies.py: distorts the look of every sample
    )
    # A crop is sampled again until it has more distinct label values than this.
    crop_label_values: int = 0
    # Likewise until no class has more than this share of the crop's labeled pixels.
    crop_max_share: float = 1.0
    crop_share_rule: Literal["at_most", "below"] = "at_most"  # or until all have less than that
    crop_tries: int = 10  # so many crops are sampled at most, and the last one is kept
    # Top, bottom, left and right of the stored image, where the labels that a teacher makes of a
    # target image do not count: pixels, or, below 1, a share of the height or width.
    ignored_borders: tuple[float, float, float, float] | None = None

    def check(self, path: str, *, crop: tuple[int, int]) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range or
        images may turn out smaller than their crop, which is `crop` unless they have their own."""
        if self.crop is not None:
            require_size(f"{path}.crop", self.crop)
        name = "data.crop" if self.crop is None else f"{path}.crop"
        crop = self.crop or crop
        low, high = self.scale
        require(
            0 < low <= high <= MAX_SCALE,
            f"{path}.scale is {self.scale}; allowed: 0 < lowest <= highest <= {MAX_SCALE}",
        )
        require_size(f"{path}.size", self.size)
        smallest = (round(self.size[0] * low), round(self.size[1] * low))
        require(
            self.keep_ratio or (crop[0] <= smallest[0] and crop[1] <= smallest[1]),
            f"{name} {crop} does not fit {path}: images of {self.size} times {low} are "
            f"{smallest} (height, width)",
        )
        weights = (1.0,) * len(self.datasets) if self.weights is None else self.weights
        require(
            len(weights) == len(self.datasets)
            and all(0 < weight < float("inf") for weight in weights),
            f"{path}.weights is {self.weights} for {', '.join(self.datasets)}; allowed: none, or a "
            f"number above 0 for each data set: add --set {path}.weights=none",
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
        require(
            0 < self.crop_tries <= _MOST_TRIES,
            f"{path}.crop_tries is {self.crop_tries}; allowed: 1 to {_MOST_TRIES}",
        )
        borders = self.ignored_borders or ()
        require(
            all(0 <= border < 1 or border == int(border) > 0 for border in borders),
            f"{path}.ignored_borders is {self.ignored_borders}; allowed: four numbers for top, "
            "bottom, left and right, each a share below 1 or whole pixels, such as 30,240,30,30",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        rules = ("crop_label_values", "crop_max_share")
        found = {}
        if len(self.datasets) < 2:
            found["weights"] = "there is one data set"
        if self.center_crop:
            reason = "with center_crop, no crop is chosen by its labels"
            return found | dict.fromkeys((*rules, "crop_share_rule", "crop_tries"), reason)
        if self.crop_max_share == 1:
            found["crop_share_rule"] = "crop_max_share is 1"
        if not self.chooses_crops:
            found["crop_tries"] = "no crop is chosen by its labels"
        return found

    @property
    def chooses_crops(self) -> bool:
        """Whether labels decide about crops."""
        return self.crop_label_values > 0 or self.crop_max_share < 1


@dataclass(kw_only=True, slots=True)
class RareClassConfig:
    """Rare class sampling of DAFormer (Hoyer et al., CVPR 2022, arXiv 2111.14887), section 3.2.

    Each source image is chosen for a class: c with the probability P(c) proportional to
    exp((1 - f_c) / temperature), f_c being its share of the source's labeled pixels, then one of
    the images that show it, all with equal probability. There are no passes over the data. Where
    data sets have weights, these choose the data set, and then its own shares and images count.
    """

    temperature: float = 0.01
    min_pixels: int = 3000  # an image shows a class with more pixels than this, as stored
    # Crop and mirror image are sampled again until the crop has more pixels of the class than this:
    # DAFormer's 3000 * 0.5 for crops of 512x512, HRDA's 3000 * 2 for 1024x1024.
    min_crop_pixels: int = 1500
    tries: int = 10  # so often at most, and the last crop is kept
    # A crop that misses the source's own rules (crop_max_share and others) counts as such a try, as
    # in VFM-UDA; else each try is a crop that these rules chose, as in DAFormer.
    joint_tries: bool = False
    # Target images are sampled with replacement, as its authors do, not in passes over the data.
    target_with_replacement: bool = True
    # Folder for the files with the pixels of each class in each label file, which are read once;
    # none: in the folder of each data set.
    statistics: str | None = None

    def check(self, path: str, *, crop: tuple[int, int]) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range;
        `crop` is the source's."""
        require(
            self.temperature >= _LOWEST_TEMPERATURE,
            f"{path}.temperature is {self.temperature}; allowed: {_LOWEST_TEMPERATURE} or more",
        )
        for name in ("min_pixels", "min_crop_pixels"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; it must not be negative")
        require(
            0 <= self.tries <= _MOST_TRIES,
            f"{path}.tries is {self.tries}; allowed: 0 to {_MOST_TRIES}",
        )
        require(
            self.statistics != "",
            f"{path}.statistics is empty; allowed: none, or a folder",
        )
        pixels = crop[0] * crop[1]
        require(
            self.min_crop_pixels < pixels,
            f"{path}.min_crop_pixels is {self.min_crop_pixels}, but a crop of {crop} has no more "
            f"than {pixels} pixels: add --set {path}.min_crop_pixels={pixels // 200}",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        names = ("min_crop_pixels", "joint_tries")
        return {} if self.tries else dict.fromkeys(names, "the first crop is kept, as tries is 0")


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
    rare_classes: RareClassConfig | None = None  # choose source images by the classes they show
    # The log's C4: train ids taken for raw ids and mapped again, which leaves six wrong classes.
    pseudo_labels_mapped_twice: bool = False
    crop: tuple[int, int] = (360, 640)
    exclude: tuple[str, ...] = ()  # samples to leave out, as dataset/name, e.g. gta5/00042
    workers: int = 2  # loader processes; any number gives the same run
    # Folder that keeps decoded images and labels for later epochs and other runs; empty: none.
    cache: str = ""
    cache_gib: float = 100.0  # it takes no more than so many GiB; see uda/data/pixel_cache.py

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require_size(f"{path}.crop", self.crop)
        require_workers(f"{path}.workers", self.workers)
        require(
            0 < self.cache_gib < float("inf"),
            f"{path}.cache_gib is {self.cache_gib}; allowed: GiB, above 0",
        )
        require(
            self.source is not None or self.target is not None,
            f"{path}.source and {path}.target are both none: there is nothing to train on",
        )
        if self.source is not None:
            self.source.check(f"{path}.source", crop=self.crop)
        if self.target is not None:
            self.target.check(f"{path}.target", crop=self.crop)
        if self.rare_classes is not None:
            require(
                self.source is not None,
                f"{path}.rare_classes chooses source images by their labels, but {path}.source is "
                f"none: add --set {path}.source=NAME, or --set {path}.rare_classes=none",
            )
            self.rare_classes.check(f"{path}.rare_classes", crop=self.crop_of(self.source))
        require(
            self.pseudo_labels is None or not self.target_ground_truth,
            f"{path}.pseudo_labels and {path}.target_ground_truth are both set: target images have "
            "one kind of labels; choose",
        )

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = {}
        domains = [domain for domain in (self.source, self.target) if domain is not None]
        if domains and all(domain.crop is not None for domain in domains):
            found["crop"] = "source and target have crops of their own"
        if not self.cache:
            found["cache_gib"] = "data.cache is empty: there is no cache"
        if self.pseudo_labels is None:
            found["pseudo_labels_mapped_twice"] = "there are no pseudo-labels"
        if self.source is not None:
            reason = "it is about labels that a teacher makes of target images"
            found["source.ignored_borders"] = reason
        if self.target is not None and self.pseudo_labels is None and not self.target_ground_truth:
            names = ("crop_label_values", "crop_max_share", "crop_share_rule", "crop_tries")
            reason = "target images have no labels to choose crops by"
            found |= dict.fromkeys((f"target.{name}" for name in names), reason)
        if self.rare_classes is not None and self.source is not None:
            found |= self._idle_rare_classes(self.source)
        return found

    def _idle_rare_classes(self, source: DomainConfig) -> dict[str, str]:
        found = {}
        if self.target is None:
            found["rare_classes.target_with_replacement"] = "data.target is none"
        if not source.chooses_crops:
            found["rare_classes.joint_tries"] = "no other rule chooses crops of the source"
        if source.center_crop:
            names = ("min_crop_pixels", "tries", "joint_tries")
            reason = "with data.source.center_crop, every try is the same crop"
            found |= dict.fromkeys((f"rare_classes.{name}" for name in names), reason)
        return found

    def crop_of(self, domain: DomainConfig | None) -> tuple[int, int]:
        """The size (height, width) of the crops of one domain."""
        return self.crop if domain is None or domain.crop is None else domain.crop


def require_workers(name: str, workers: int) -> None:
    """Raises InputError unless so many loader processes can be started."""
    require(
        0 <= workers <= MOST_WORKERS,
        f"{name} is {workers}; it must not be negative, nor above {MOST_WORKERS}",
    )
