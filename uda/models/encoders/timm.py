"""Trunks of timm's classification networks, for DeepLabV3+ (optional extra `timm`).

Source: Wightman, github.com/huggingface/pytorch-image-models; InceptionResNetV2 is of Szegedy et
al., AAAI 2017, arXiv 1602.07261.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from uda.models.encoders.backbone import Backbone, BackboneChannels, BackboneFeatures
from uda.models.encoders.weights import load_file
from uda.models.segmenter import Normalization
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.weight_files import reason

TIMM = "timm/"  # what the names of these backbones begin with
_LOW_STRIDE = 4
_ODD_SIZE = (65, 97)  # pixels; no stride divides it


def timm_backbone(name: str, *, output_stride: Literal[8, 16], weights: str) -> "TimmBackbone":
    """A trunk of timm's network `name`, whose `provenance` says which weights it carries.

    Its deepest features are at `output_stride`: by dilation where timm offers that for this
    network, otherwise they are its features of stride 16, and what follows is left out. `weights`
    is "none" (random), "imagenet" (timm's download) or the path of timm's state dict.

    Raises InputError when timm is not installed, has no such network or none with features that
    can be used, and when the weights cannot be had or are another network's.
    """
    timm = require_extra("timm", needed_by=f"model.backbone {TIMM}{name}")
    known = [*timm.list_models(), *timm.list_pretrained()]
    require(
        name in known,
        f"model.backbone is {shown(TIMM + name)}, but timm has no network of that name; "
        f"{suggest(name, known)}",
    )
    taken = _taken(timm, name, output_stride)
    with_weights = weights == "imagenet"
    network = _pretrained(timm, name, taken) if with_weights else _create(timm, name, taken)
    backbone = TimmBackbone(network, taken, timm.get_pretrained_cfg(name))
    if with_weights:
        backbone.provenance = f"timm {backbone.name}"
    elif weights != "none":
        with torch.random.fork_rng(devices=[]):
            backbone.known_names = set(timm.create_model(name).state_dict())
        load_file(backbone, Path(weights), allowed="none, imagenet")
    backbone.finish()
    return backbone


class _Taken(NamedTuple):
    """Which features of a network are used: positions in timm's list of them."""

    options: Mapping[str, object]  # what `create_model` needs for them
    low: int
    middle: int
    deep: int
    strides: tuple[int, int, int]  # of low, middle and deep

    @property
    def positions(self) -> list[int]:
        return sorted({self.low, self.middle, self.deep})


class TimmBackbone(Backbone):
    """A network of timm without its classifier, up to the features that are used."""

    file_kind = "timm state dict"
    prefixes = ("module.",)

    def __init__(self, network: nn.Module, taken: _Taken, described: Any) -> None:  # noqa: ANN401
        """Use `timm_backbone`. `described`: timm's PretrainedCfg of the network."""
        super().__init__()
        self.network = network
        self.taken = taken
        self.name = f"{described.architecture}.{described.tag}".removesuffix(".")
        self.title = f"{described.architecture} of timm"
        self.normalization = Normalization(mean=described.mean, std=described.std)
        channels = dict(zip(taken.positions, self._described("channels"), strict=True))
        self.channels = BackboneChannels(*(channels[i] for i in taken[1:4]))
        self.known_names: set[str] = set()  # of tensors in the whole network's files

    def forward(self, images: Tensor) -> BackboneFeatures:
        """Features at three depths; the middle ones are the deepest where there are no others.

        images: (N, 3, H, W) float, normalized
        """
        found = dict(zip(self.taken.positions, self.network(images), strict=True))
        return BackboneFeatures(*(found[position] for position in self.taken[1:4]))

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """Of a file's `state`, what this trunk has, under its names; what only the whole network
        has is left out. timm's trunks write `stages_0` where the whole network has `stages.0`."""
        own = {_flat(name.removeprefix("network.")): name for name in self.state_dict()}
        return {
            own.get(_flat(name), name): value
            for name, value in state.items()
            if _flat(name) in own or name not in self.known_names
        }

    def finish(self) -> None:
        """To be called once the weights are loaded: layers as the rest of this library needs them.

        Where convolutions without padding make features too small, they are padded, so that the
        features of every stride lie upon each other and images of any size can be read.
        """
        _split_batch_norm(self.network)
        if not self._sizes_are_strides():
            _pad(self.network)
        require(
            self._sizes_are_strides(),
            f"model.backbone {self.title} does not make features of an image of {_ODD_SIZE[1]}x"
            f"{_ODD_SIZE[0]} at strides {self.taken.strides}: give another backbone",
        )

    def _described(self, what: str) -> Sequence[int]:
        info: Any = self.network.feature_info
        return getattr(info, what)()

    @torch.no_grad()
    def _sizes_are_strides(self) -> bool:
        """Whether each side of the features is the image's, divided by their stride and rounded."""
        training = self.training
        self.eval()
        try:
            features = self(torch.zeros(1, 3, *_ODD_SIZE))
        except Exception:  # every network has its own for sizes that it cannot read
            return False
        finally:
            self.train(training)
        expected = zip(features, self.channels, self.taken.strides, strict=True)
        return all(
            feature.shape[1] == channels and _is_rounded(feature.shape[2:], stride)
            for feature, channels, stride in expected
        )


def _taken(timm: ModuleType, name: str, output_stride: int) -> _Taken:
    """Which features of timm's network to use; InputError when they are not there."""
    described: object = "none that can be used"
    for options in ({"output_stride": output_stride}, {}):
        try:
            with torch.device("meta"):  # which takes no memory: a name may come from any snapshot
                info = timm.create_model(name, features_only=True, **options).feature_info
        except Exception:  # every network has its own for options that it does not know
            continue
        described = strides = info.reduction()
        if _LOW_STRIDE not in strides or output_stride not in strides[1:]:
            continue
        if not options and output_stride != 16:
            continue  # a detail of shallow features, which no published network is built on
        deep = _last(strides, output_stride)
        middle = deep - 1 if strides[deep - 1] == output_stride else deep
        places = (_last(strides, _LOW_STRIDE), middle, deep)
        low, middle, deep = (info.out_indices[place] for place in places)
        used = (_LOW_STRIDE, output_stride, output_stride)
        return _Taken(options, low, middle, deep, used)
    raise InputError(
        f"model.backbone {TIMM}{name} has features at strides {described}; DeepLabV3+ needs "
        f"{_LOW_STRIDE} and {output_stride}: give another backbone, or model.output_stride=16"
    )


def _last(strides: Sequence[int], stride: int) -> int:
    return len(strides) - 1 - list(reversed(strides)).index(stride)


def _create(timm: ModuleType, name: str, taken: _Taken, *, pretrained: bool = False) -> nn.Module:
    network: nn.Module = timm.create_model(
        name,
        pretrained=pretrained,
        features_only=True,
        out_indices=tuple(taken.positions),
        **taken.options,
    )
    return network


def _pretrained(timm: ModuleType, name: str, taken: _Taken) -> nn.Module:
    """The network with timm's weights; InputError when there are none, or no way to them."""
    published = timm.get_pretrained_cfg(name)
    instead = "use --set model.backbone_weights=none, or the path of a file"
    require(published.has_weights, f"timm has no weights of {name}: {instead}")
    try:
        return _create(timm, name, taken, pretrained=True)
    except Exception as error:  # of the hub's client, of HTTP, or of what was downloaded
        where = published.hf_hub_id or published.url
        raise InputError(
            f"the weights of {name} could not be downloaded from {where} ({reason(error)}): "
            f"{instead}"
        ) from error


def _is_rounded(size: torch.Size, stride: int) -> bool:
    """Whether features of that size are those of an image of _ODD_SIZE, rounded either way."""
    exact = [side / stride for side in _ODD_SIZE]
    return all(side in (math.floor(e), math.ceil(e)) for side, e in zip(size, exact, strict=True))


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _split_batch_norm(module: nn.Module) -> None:
    """timm's batch norm with an activation in it becomes torch's and the activation: processes
    exchange the statistics of torch's only."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and type(child) is not nn.BatchNorm2d:
            after = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]
            setattr(module, name, nn.Sequential(_plain(child), *after))
        else:
            _split_batch_norm(child)


def _plain(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    plain.load_state_dict({name: norm.state_dict()[name] for name in plain.state_dict()})
    return plain


def _pad(network: nn.Module) -> None:
    """Convolutions and pooling that overlap and have no padding keep what lies at the edges.

    timm's other kinds of layers pad in ways of their own and are left alone.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.padding == (0, 0):
            (height, width), (down, right) = layer.kernel_size, layer.dilation
            if height > layer.stride[0] or width > layer.stride[1]:
                layer.padding = (down * (height // 2), right * (width // 2))
        elif type(layer) is nn.MaxPool2d and (layer.kernel_size, layer.padding) == (3, 0):
            layer.padding = 0 if layer.ceil_mode else 1
