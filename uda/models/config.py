"""Settings that all networks have."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from uda.models.segmenter import BatchNormMode, Segmenter
from uda.utilities.errors import require, shown
from uda.utilities.slots import rebind_super

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MOST = 16  # branches of a head
_LARGEST = 8192  # number of channels, or dilation; networks that can be built stay far below


def _check_sizes(config: "DataclassInstance", path: str) -> None:
    """Raises InputError for numbers that no network could have, also in nested settings."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            _check_sizes(value, f"{path}.{field.name}")
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        require(
            len(numbers) <= _MOST and all(n <= _LARGEST for n in numbers if isinstance(n, int)),
            f"{path}.{field.name} is {shown(value)}; allowed: up to {_LARGEST}"
            + (f", {_MOST} at most" if isinstance(value, tuple) else ""),
        )


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Settings of a network, which `build()` makes. Subclasses add fields; every field changes the
    network."""

    batch_norm: BatchNormMode = "train"  # of the backbone, see Segmenter
    dropout: float = 0.1  # share of the heads' channels or values that a training step drops

    def __init_subclass__(cls) -> None:
        rebind_super(cls)

    @property
    def title(self) -> str:
        """The network in words, such as "DeepLabV3Plus on resnet101"."""
        network = type(self).__name__.removesuffix("Config")
        backbone = getattr(self, "backbone", None)
        return network if backbone is None else f"{network} on {backbone}"

    def composed(self) -> "ModelConfig | None":
        """The same network as an encoder and a decoder that can be exchanged; None where there is
        no such network."""
        return None

    def without_weights(self) -> Self:
        """The same network with an encoder from random weights: nothing is read or downloaded."""
        known = {f.name for f in fields(self)} & {"backbone_weights"}
        changes: dict[str, Any] = dict.fromkeys(known, "none")
        return replace(self, **changes)

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether the network's outputs carry `auxiliary_logits`."""
        return False

    @property
    def auxiliary_switch(self) -> tuple[str, str]:
        """The field below `model` that adds an auxiliary head, and its value for none.

        Networks without such a field return words for the message "objective ... needs
        model.auxiliary_head ..., which this preset lacks".
        """
        network = type(self).__name__.removesuffix("Config")
        return f"auxiliary_head ({network} can have none)", "false"

    @property
    def has_queries(self) -> bool:
        """Whether, in training, the network's outputs carry `query_classes` and `query_masks`."""
        return False

    @property
    def hides_tokens(self) -> bool:
        """Whether views may hide tokens from the network: `View.hide_tokens`."""
        return False

    def check(self, num_classes: int) -> None:
        """Raises InputError when a field that all networks have is out of range."""
        require(num_classes >= 1, f"num_classes is {num_classes}; allowed: 1 or more")
        require(
            0 <= self.dropout < 1,
            f"model.dropout is {self.dropout}; allowed: 0 up to, not including, 1",
        )
        _check_sizes(self, "model")

    def build(self, num_classes: int) -> Segmenter:
        """The network, on the CPU and in training mode, initialized from torch's generator.

        Raises InputError when a field's value is not allowed or the weights cannot be had.
        """
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class BackboneModelConfig(ModelConfig):
    """Settings of a network whose encoder is set by fields of the network."""

    backbone: str
    backbone_weights: str = "imagenet"  # "none", "imagenet" or the path of a state dict; before it
    # may stand "in-order:", for tensors of another project's names, taken by their order
