"""Settings of the data a run trains on. Sizes are (height, width) in pixels."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class DomainConfig:
    """Images of one domain and how they are augmented."""

    datasets: tuple[str, ...]  # names of uda/data/registry.py; their images are joined
    splits: tuple[str, ...] = ("train",)
    first: int | None = None  # keep only the first N of the sorted list
    size: tuple[int, int] = (512, 1024)  # every image is resized to this ...
    scale: tuple[float, float] = (1.0, 1.0)  # ... times a random factor from this range
    mirror: bool = False  # flip half of the samples left to right
    # A crop is drawn again, up to ten times, until it has more distinct label values than this.
    crop_label_values: int = 0


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a run trains on."""

    root: str = ""  # folder that holds the data sets; empty: the environment variable UDA_DATA
    source: DomainConfig  # images whose labels are learned from
    target: DomainConfig | None = None  # images without labels
    pseudo_labels: str | None = None  # folder of pseudo_label.py with labels for the target images
    crop: tuple[int, int] = (360, 640)
    exclude: tuple[str, ...] = ()  # samples to leave out, as dataset/name, e.g. gta5/00042
    workers: int = 2  # loader processes; any number gives the same run
