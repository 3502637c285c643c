"""timm's classification networks as encoders (optional extra `timm`).

Source: Wightman, github.com/huggingface/pytorch-image-models; InceptionResNetV2 is of Szegedy et
al., AAAI 2017, arXiv 1602.07261.
"""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from uda.models.encoders.base import (
    BackboneConfig,
    Encoder,
    EncoderConfig,
    EncoderFamily,
    FeatureMaps,
    Normalization,
)
from uda.models.encoders.weights import load_file
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.weight_files import reason

TIMM = "timm/"  # prefix of these encoders' names
_LOW_STRIDE = 4
_ODD_SIZE = (65, 97)  # pixels; no stride divides it


def timm_backbone(name: str, *, output_stride: int, weights: str) -> "TimmBackbone":
    """The same as `build`, for flat settings; `name` is without the prefix."""
    return build(BackboneConfig(name=TIMM + name, output_stride=output_stride, weights=weights))


def build(config: EncoderConfig) -> "TimmBackbone":
    """timm's network `config.name` as an encoder whose `provenance` says which weights it has.

    The last map is at `output_stride` (8, 16 or 32): by dilation where timm offers that for this
    network; otherwise it is the network's map of stride 16 or 32, and deeper layers are left out.
    `weights` is "none" (random), "imagenet" (timm's download) or the path of timm's state dict.

    Raises InputError when timm is not installed, has no such network or none with features that
    can be used, and when the weights cannot be had or are another network's.
    """
    config.refuse("width", "drop_path", "patch_norm_eps")
    name, weights = config.name.removeprefix(TIMM), config.weights
    output_stride = config.output_stride or 16
    option = config.option("name")
    timm = require_extra("timm", needed_by=f"{option} {config.name}")
    known = [*timm.list_models(), *timm.list_pretrained()]
    require(
        name in known,
        f"{option} is {shown(config.name)}, but timm has no network of that name; "
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
        load_file(backbone, config, allowed="none, imagenet")
    backbone.finish()
    return backbone


TIMM_NETWORKS = EncoderFamily(
    names=f"{TIMM} and the name of a network of timm, such as {TIMM}inception_resnet_v2",
    includes=lambda name: name.startswith(TIMM),
    build=build,
)


class _Taken(NamedTuple):
    """Which feature maps of a network are used."""

    options: Mapping[str, object]  # what `create_model` needs for them
    positions: tuple[int, ...]  # in timm's list of maps
    strides: tuple[int, ...]


class TimmBackbone(Encoder):
    """A network of timm without its classifier, up to the features that are used."""

    file_kind = "timm state dict"
    prefixes = ("module.",)

    def __init__(self, network: nn.Module, taken: _Taken, described: Any) -> None:  # noqa: ANN401
        """Use `timm_backbone`. `described`: timm's PretrainedCfg of the network."""
        super().__init__()
        self.network = network
        self.name = f"{described.architecture}.{described.tag}".removesuffix(".")
        self.title = f"{described.architecture} of timm"
        self.normalization = Normalization(mean=described.mean, std=described.std)
        self.channels = tuple(self._described("channels"))
        self.strides = taken.strides
        self.known_names: set[str] = set()  # of tensors in the whole network's files

    def forward(self, images: Tensor) -> FeatureMaps:
        """The last map of each stride from 4 to the output stride; of the output stride also the
        map before it, if that has the same stride.

        images: (N, 3, H, W) float, normalized
        """
        return tuple(self.network(images))

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """The entries that this encoder has, under its own names, without those that only the whole
        network has. With features_only, timm writes `stages_0` for the whole network's `stages.0`.
        """
        own = {_flat(name.removeprefix("network.")): name for name in self.state_dict()}
        return {
            own.get(_flat(name), name): value
            for name, value in state.items()
            if _flat(name) in own or name not in self.known_names
        }

    def finish(self) -> None:
        """Adapts the layers to this library; call it after the weights are loaded.

        Convolutions without padding make maps too small. They get padding, so that the maps of all
        strides are aligned and images of any size can be read.
        """
        _split_batch_norm(self.network)
        if not self._sizes_are_strides():
            _pad(self.network)
        require(
            self._sizes_are_strides(),
            f"model.backbone {self.title} does not make feature maps at strides {self.strides} of "
            f"an image of {_ODD_SIZE[1]}x{_ODD_SIZE[0]} pixels: choose another backbone",
        )

    def _described(self, what: str) -> Sequence[int]:
        info: Any = self.network.feature_info
        return getattr(info, what)()

    @torch.no_grad()
    def _sizes_are_strides(self) -> bool:
        """Whether each side of a map is the image's, divided by the stride and rounded."""
        training = self.training
        self.eval()
        try:
            features = self(torch.zeros(1, 3, *_ODD_SIZE))
        except Exception:  # each network raises its own kind for sizes that it cannot read
            return False
        finally:
            self.train(training)
        expected = zip(features, self.channels, self.strides, strict=True)
        return all(
            feature.shape[1] == channels and _is_rounded(feature.shape[2:], stride)
            for feature, channels, stride in expected
        )


def _taken(timm: ModuleType, name: str, output_stride: int) -> _Taken:
    """Which maps of timm's network to use; InputError when they are not there."""
    described: object = "none that can be used"
    for options in ({"output_stride": output_stride}, {}):
        try:
            with torch.device("meta"):  # without memory: any snapshot can name a huge network
                info = timm.create_model(name, features_only=True, **options).feature_info
        except Exception:  # each network raises its own kind for unknown options
            continue
        described = strides = info.reduction()
        if _LOW_STRIDE not in strides or output_stride not in strides[1:]:
            continue
        if not options and output_stride == 8:
            continue  # shallow features only, which no published network is built on
        places = {_last(strides, s) for s in strides if _LOW_STRIDE <= s <= output_stride}
        deep = _last(strides, output_stride)
        if strides[deep - 1] == output_stride:
            places.add(deep - 1)
        used = sorted(places)
        return _Taken(
            options, tuple(info.out_indices[p] for p in used), tuple(strides[p] for p in used)
        )
    raise InputError(
        f"model.backbone {TIMM}{name} has feature maps at strides {described}; needed: "
        f"{_LOW_STRIDE} and {output_stride}: choose another backbone, or model.output_stride=16"
    )


def _last(strides: Sequence[int], stride: int) -> int:
    return len(strides) - 1 - list(reversed(strides)).index(stride)


def _create(timm: ModuleType, name: str, taken: _Taken, *, pretrained: bool = False) -> nn.Module:
    network: nn.Module = timm.create_model(
        name,
        pretrained=pretrained,
        features_only=True,
        out_indices=taken.positions,
        **taken.options,
    )
    return network


def _pretrained(timm: ModuleType, name: str, taken: _Taken) -> nn.Module:
    """The network with timm's weights; InputError when there are none or the download fails."""
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
    """Replaces timm's batch norm with a built-in activation by torch's and the activation: only the
    statistics of torch's are exchanged between processes."""
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
    """Pads overlapping convolutions and pooling that have no padding, so that no edge is lost.

    timm's other kinds of layers have their own padding and are not changed.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.padding == (0, 0):
            (height, width), (down, right) = layer.kernel_size, layer.dilation
            if height > layer.stride[0] or width > layer.stride[1]:
                layer.padding = (down * (height // 2), right * (width // 2))
        elif type(layer) is nn.MaxPool2d and (layer.kernel_size, layer.padding) == (3, 0):
            layer.padding = 0 if layer.ceil_mode else 1
