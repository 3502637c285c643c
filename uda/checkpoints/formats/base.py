"""What a format of files of other projects is; foreign.py reads them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import uda.checkpoints.formats
from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.models.config import ModelConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import Normalization
from uda.models.encoders.resnet import BackboneName
from uda.utilities.discovery import instances_of

Entries = Mapping[str, object]  # of a state dict: tensors by name, and whatever else is there

NOT_IN_THE_FILE = "unknown (a file of another project does not say)"
CAFFE_QUIRKS = "corners aligned; BGR input minus Caffe's mean; ceil-mode pooling"
IMAGENET_QUIRKS = "RGB input by ImageNet's mean and deviation; floor-mode pooling"
ENCODER = "{encoder}"  # in a format's name


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """How a file with several networks tells them apart: by what their names begin with."""

    student: str
    teacher: str
    or_teacher: str = ""  # of files without the former
    others: Mapping[str, str]  # not read: how their names begin, and what they are in words


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignFormat:
    """How a project names the parts of one of our networks.

    A file in this folder makes one or more of them at its top level; nothing else is edited.
    """

    name: str  # in words; ENCODER stands for that of the network
    project: str  # what --project takes; several formats may be of one project
    # Our network, without weights of its own, for a file with such entries; for one without any,
    # the usual network. It looks at names and shapes and builds nothing.
    network: Callable[[Entries], ModelConfig]
    prefixes: Mapping[str, str]  # of their names to those of ours; the longest that fits counts
    # Before names are exchanged: the entries under other names, split, joined or reshaped, where
    # prefixes do not suffice. It leaves alone what does not have the shape that it expects.
    convert: Callable[[Entries], Entries] = dict
    networks: Networks | None = None  # in files with several; a file of bare names is one, too
    # How names begin of which a file has one at least, to compare it with few formats. None: of
    # the names that `prefixes` lists, all but the backbone's.
    marks: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()  # how their entries begin that the network never reads
    # Of formats whose entries are the same, which one a file is of: yes, no, or that the tensors
    # do not tell. Where several are left, the user has to choose.
    applies: Callable[[Entries], bool | None] = lambda entries: True
    classifier: str  # their tensor with as many rows as there are classes
    normalization: Normalization  # of the network
    label_spaces: tuple[LabelSpace, ...] = (CITYSCAPES,)  # the first for files without classifier
    supervision: str = NOT_IN_THE_FILE  # what target labels it was trained with
    protocol: str  # that its authors evaluate it by; a name in uda/evaluation/protocols.py
    # What the network does that no tensor shows, in words, but for its output stride: where it has
    # such a field, it is said by itself, and users may set it.
    quirks: str
    stride_in_name: str = ""  # a pattern of files' names; its group is the output stride

    def title(self, model: ModelConfig) -> str:
        """The name, for a file whose network is `model`."""
        return self.name.replace(ENCODER, _in_words(encoder_of(model)))

    def own_name(self, name: str) -> str | None:
        """Our name of their entry, after conversion; none when no prefix fits."""
        return _exchange(name, self.prefixes)

    def their_name(self, own: str) -> str | None:
        """Their name, after conversion, of our entry; none for what their files do not hold."""
        return _exchange(own, {ours: theirs for theirs, ours in self.prefixes.items()})

    def may_be(self, entries: Entries) -> bool:
        """Whether the file has one of the `marks`."""
        heads = (n for n, own in self.prefixes.items() if n and not own.startswith("backbone."))
        return any_begins(entries, self.marks or tuple(heads))

    def has_names_of(self, entries: Entries) -> bool:
        """Whether one of the names is as the backbone's or those of heads are."""
        return any_begins(entries, tuple(filter(None, self.prefixes)))

    @property
    def backbone_is_bare(self) -> bool:
        """Whether the backbone has torchvision's names, so that a file can be used as initial
        weights."""
        return "" in self.prefixes


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneFile:
    """Files that are no network of ours, but known: an encoder alone, for initial weights; a
    network that this library does not build."""

    # What such a file is and what to do with it, such as "a ResNet-50: --set ...={file}"; none
    # for other files. "{file}" stands for its path.
    use: Callable[[Entries], str | None]
    is_whole: bool = False  # a network with heads, which this library does not build


@cache
def known_formats() -> tuple[ForeignFormat, ...]:
    """The formats of the files of this folder."""
    return tuple(instances_of(uda.checkpoints.formats, ForeignFormat))


@cache
def backbone_files() -> tuple[BackboneFile, ...]:
    """The kinds of files with an encoder alone."""
    return tuple(instances_of(uda.checkpoints.formats, BackboneFile))


def encoder_of(model: ModelConfig) -> str:
    """The name of the network's encoder."""
    if isinstance(model, EncoderDecoderConfig):
        return model.encoder.name
    return str(getattr(model, "backbone", ""))


def resnet_of(entries: Entries, prefix: str = "") -> BackboneName:
    """The ResNet whose blocks have these names after `prefix`; ResNet-101 for one of other depth.

    The third stage has 2 (ResNet-18), 6 (34, 50) or 23 (101) blocks, of 2 or 3 convolutions.
    """
    last = f"{prefix}layer4.0.conv1.weight"  # a file that ends before it has lost blocks
    if f"{prefix}layer3.6.conv1.weight" in entries or last not in entries:
        return "resnet101"
    if f"{prefix}layer1.0.conv3.weight" in entries:
        return "resnet50"
    return "resnet34" if f"{prefix}layer3.5.conv1.weight" in entries else "resnet18"


def any_begins(entries: Entries, beginnings: tuple[str, ...]) -> bool:
    """Whether one of the names begins so."""
    return any(name.startswith(beginnings) for name in entries)


def _exchange(name: str, prefixes: Mapping[str, str]) -> str | None:
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return None
    longest = max(fitting, key=len)
    return prefixes[longest] + name.removeprefix(longest)


def _in_words(encoder: str) -> str:
    """Such as "ResNet-101" for resnet101 and "MiT-B5" for mit_b5; other names as they are."""
    words = re.sub(r"^resnet(\d+)(_v1c)?", r"ResNet-\1", encoder)
    return re.sub(r"^mit_b(\d)", r"MiT-B\1", words)
