"""timm's classification networks as encoders (optional extra `timm`).

Source: Wightman, github.com/huggingface/pytorch-image-models; InceptionResNetV2 is of Szegedy et
al., AAAI 2017, arXiv 1602.07261.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.models.encoders.base import (
    BackboneConfig,
    Encoder,
    EncoderConfig,
    EncoderFamily,
    FeatureMaps,
    Normalization,
)
from uda.models.encoders.timm_maps import (
    Taken,
    channels_second,
    own_pyramid,
    pad,
    reads,
    taken_to_stride,
)
from uda.models.encoders.timm_sizes import OtherSizes
from uda.models.encoders.weights import load_file
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.hub import by_hand, without_retries
from uda.utilities.weight_files import reason

TIMM = "timm/"  # prefix of these encoders' names


def timm_backbone(name: str, *, output_stride: int, weights: str) -> "TimmBackbone":
    """The same as `build`, for flat settings; `name` is without the prefix."""
    return build(BackboneConfig(name=TIMM + name, output_stride=output_stride, weights=weights))


def build(config: EncoderConfig) -> "TimmBackbone":
    """timm's network `config.name` as an encoder whose `provenance` says which weights it has.

    Without `output_stride` it has the network's own feature maps of stride 4 and more. With one (8,
    16 or 32), the last map is at that stride: by dilation where timm offers that for this network;
    otherwise it is the network's map of stride 16 or 32, and deeper layers are left out. Maps of
    timm's plain vision transformers are not normalized.
    `weights` is "none" (random), "imagenet" (timm's download) or the path of timm's state dict.

    Raises InputError when timm is not installed, has no such network or none with features that
    can be used, and when the weights cannot be had or are another network's.
    """
    config.refuse("width", "patch_norm_eps")
    name, weights = config.name.removeprefix(TIMM), config.weights
    option = config.option("name")
    timm = require_extra("timm", needed_by=f"{option} {config.name}")
    # Names from files, too, come here: what is not in timm's lists could lead to a hub or a folder.
    known = [*timm.list_models(), *timm.list_pretrained()]
    require(
        name in known,
        f"{option} is {shown(config.name)}, but timm has no network of that name; "
        f"{suggest(config.name, [TIMM + one for one in known])}",
    )
    if config.output_stride is None:
        taken = own_pyramid(timm, name, option=option)
    else:
        taken = taken_to_stride(timm, name, config.output_stride, option=option)
    if config.drop_path is not None:
        taken = _with_drop_path(timm, name, taken, config)
    with_weights = weights == "imagenet"
    network = _pretrained(timm, name, taken, config) if with_weights else _create(timm, name, taken)
    backbone = TimmBackbone(network, taken, timm.get_pretrained_cfg(name))
    if config.checkpointing:
        backbone.prepare_checkpointing(config)
    if with_weights:
        backbone.provenance = f"timm {backbone.name}"
    elif weights != "none":
        with torch.device("meta"):
            backbone.known_names = set(timm.create_model(name).state_dict())
        load_file(backbone, config, allowed="none, imagenet")
    backbone.finish()
    return backbone


TIMM_NETWORKS = EncoderFamily(
    names=f"{TIMM} and the name of a network of timm, such as {TIMM}convnext_tiny",
    includes=lambda name: name.startswith(TIMM),
    build=build,
)


class TimmBackbone(Encoder):
    """A network of timm without its classifier, up to the features that are used."""

    file_kind = "timm state dict"
    prefixes = ("module.",)

    def __init__(self, network: nn.Module, taken: Taken, described: Any) -> None:  # noqa: ANN401
        """Use `build`. `described`: timm's PretrainedCfg of the network."""
        super().__init__()
        self.network = network
        self.architecture: str = described.architecture
        self.name = f"{described.architecture}.{described.tag}".removesuffix(".")
        self.title = f"{described.architecture} of timm"
        self.normalization = Normalization(mean=described.mean, std=described.std)
        self.channels = tuple(self._described("channels"))
        self.strides = taken.strides
        self.divisor = taken.divisor
        self._other_sizes = taken.made_for and OtherSizes(
            self.architecture, taken.made_for, out_indices=taken.positions, **taken.options
        )
        self.known_names: set[str] = set()  # of tensors in the whole network's files
        # In the order of `parameters`, which `finish` keeps.
        self._names = [self._flat(f"network.{name}") for name, _ in network.named_parameters()]

    def forward(self, images: Tensor) -> FeatureMaps:
        """The maps whose `strides` this encoder declares.

        images: (N, 3, H, W) float, normalized, H and W multiples of `divisor`
        """
        if self.checkpointing and self._has_stages():
            return channels_second(self.network, self._stage_by_stage(images))
        if self._other_sizes is not None:
            return self._other_sizes.run(self.network, images)
        return channels_second(self.network, self.network(images))

    def _has_stages(self) -> bool:
        """Whether timm runs the network's children one after the other."""
        return hasattr(self.network, "return_layers")

    def _stage_by_stage(self, images: Tensor) -> list[Tensor]:
        network: Any = self.network
        maps, features = [], images
        for name, stage in network.items():
            # What changes its input in place cannot be computed again.
            learned = next(stage.parameters(), None) is not None
            features = self.run(stage, features) if learned else stage(features)
            if name in network.return_layers:
                maps.append(features)
        return maps

    def prepare_checkpointing(self, config: EncoderConfig) -> None:
        """Raises InputError when timm's network has no stages that can be computed again."""
        if self._has_stages():
            return
        model: Any = getattr(self.network, "model", None)
        option = config.option("checkpointing")
        instead = InputError(
            f"{option} is true, but {self.title} has no stages that can be computed again: use "
            f"--set {option}=false"
        )
        # timm would move the statistics of batch normalization twice.
        if (
            model is None
            or self._other_sizes
            or any(isinstance(m, _BatchNorm) for m in self.modules())
        ):
            raise instead
        try:
            model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):  # it has none, or refuses
            raise instead from None

    def layers(self) -> list[list[nn.Parameter]]:
        """The groups of timm's `group_matcher`; InputError for a network that has none."""
        timm = require_extra("timm", needed_by=self.title)
        with torch.device("meta"):
            whole = timm.create_model(self.architecture)
        if not hasattr(whole, "group_matcher"):
            return super().layers()
        groups = timm.models.group_parameters(whole, whole.group_matcher(), reverse=True)
        number = {self._flat(f"network.{name}"): group for name, group in groups.items()}
        if not set(self._names) <= set(number):
            return super().layers()
        layers: dict[int, list[nn.Parameter]] = {}
        for name, parameter in zip(self._names, self.parameters(), strict=True):
            layers.setdefault(number[name], []).append(parameter)
        return [layers[group] for group in sorted(layers)]

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """The entries that this encoder has, under its own names, without those that only the whole
        network has. With features_only, timm writes `stages_0` for the whole network's `stages.0`,
        or puts `model.` before all names.
        """
        own = {self._flat(name): name for name in self.state_dict()}
        return {
            own.get(_flat(name), name): value
            for name, value in state.items()
            if _flat(name) in own or name not in self.known_names
        }

    def _flat(self, name: str) -> str:
        """The whole network's name of a tensor of this encoder, flattened."""
        inner = "network.model." if hasattr(self.network, "model") else "network."
        return _flat(name.removeprefix(inner).removeprefix("network."))

    def finish(self) -> None:
        """Adapts the layers to this library; call it after the weights are loaded.

        Convolutions without padding make maps too small. They get padding, so that the maps of all
        strides are aligned and images of any size can be read.
        """
        _split_batch_norm(self.network)
        if not self._sizes_are_strides():
            pad(self.network)
        require(
            self._sizes_are_strides(),
            f"model.backbone {self.title} does not make feature maps at strides {self.strides} of "
            "images of any size: choose another backbone",
        )

    def _described(self, what: str) -> Sequence[int]:
        info: Any = self.network.feature_info
        return getattr(info, what)()

    def _sizes_are_strides(self) -> bool:
        training = self.training
        self.eval()
        try:
            device = next(self.parameters()).device  # without memory while a snapshot is opened
            return reads(self, self.channels, self.strides, divisor=self.divisor, device=device)
        finally:
            self.train(training)


def _with_drop_path(timm: ModuleType, name: str, taken: Taken, config: EncoderConfig) -> Taken:
    """The same with timm's drop path; InputError when the network has none."""
    options = {**taken.options, "drop_path_rate": config.drop_path}
    option = config.option("drop_path")
    try:
        with torch.device("meta"):
            network = timm.create_model(name, features_only=True, **options)
        paths = [m for m in network.modules() if type(m).__name__ == "DropPath"]
    except Exception:  # each network raises its own kind for unknown options
        paths = []
    require(
        bool(paths) or config.drop_path == 0,
        f"{option} is {config.drop_path}, but {name} of timm cannot leave out paths: use --set "
        f"{option}=none",
    )
    return taken._replace(options=options if paths else taken.options)


def _create(timm: ModuleType, name: str, taken: Taken, *, pretrained: bool = False) -> nn.Module:
    network: nn.Module = timm.create_model(
        name,
        pretrained=pretrained,
        features_only=True,
        out_indices=taken.positions,
        **taken.options,
    )
    return network


def _pretrained(timm: ModuleType, name: str, taken: Taken, config: EncoderConfig) -> nn.Module:
    """The network with timm's weights; InputError when there are none or the download fails."""
    published = timm.get_pretrained_cfg(name)
    instead = f"use --set {config.option('weights')}=none, or the path of a file"
    require(published.has_weights, f"timm has no weights of {name}: {instead}")
    try:
        with without_retries():
            return _create(timm, name, taken, pretrained=True)
    except Exception as error:  # of the hub's client, of HTTP, or of what was downloaded
        where = published.hf_hub_id or published.url
        if published.hf_hub_id:
            file = published.hf_hub_filename or "model.safetensors"
            instead = by_hand(published.hf_hub_id, file, config.option("weights"))
        raise InputError(
            f"the weights of {name} could not be downloaded from {where} ({reason(error)}): "
            f"{instead}"
        ) from error


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
