"""Mix Transformers' weights: files, the hub, and the same maps as other libraries'."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from recipes import recipe_weight
from uda.models.encoders import mit_weights
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.mit import build
from uda.utilities.errors import InputError

TINY = EncoderConfig(name="mit_b0", weights="none", drop_path=0.0)
IMAGES = torch.rand(2, 3, 64, 96)


def distinct(encoder: nn.Module) -> dict[str, Tensor]:
    """Weights of which none is like another, so that exchanged ones are noticed."""
    return {name: recipe_weight(name, tensor) for name, tensor in encoder.state_dict().items()}


HEAD = {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state | HEAD,
        lambda state: {"state_dict": {f"module.{n}": t for n, t in (state | HEAD).items()}},
    ],
    ids=["as published", "wrapped"],
)
def test_weights_of_a_file(wrap: Callable[[dict[str, Tensor]], object], tmp_path: Path) -> None:
    state, path = distinct(build(TINY)), tmp_path / "mit_b0.pth"
    torch.save(wrap(state), path)
    encoder = build(replace(TINY, weights=str(path)))
    assert encoder.provenance.startswith("file mit_b0.pth sha256:")
    assert all(torch.equal(t, state[n]) for n, t in encoder.state_dict().items())
    with pytest.raises(InputError, match="does not hold the weights of a MiT-B1"):
        build(replace(TINY, name="mit_b1", weights=str(path)))


def transformers_model() -> nn.Module:
    """transformers' classifier of the size of B0, with its one epsilon replaced by the authors'."""
    transformers = pytest.importorskip("transformers")
    model: nn.Module = transformers.SegformerForImageClassification(transformers.SegformerConfig())
    model.load_state_dict(distinct(model))
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            patch = "patch_embeddings" in name or "sequence_reduction" in name or ".self." in name
            module.eps = 1e-5 if patch else 1e-6
    return model.eval().double()


def test_maps_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = transformers_model()
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    safetensors = pytest.importorskip("safetensors.torch")
    state = safetensors.load_file(tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    encoder = build(replace(TINY, weights=str(tmp_path / "pytorch_model.bin"))).eval().double()
    images = IMAGES.double()[:, :, :, :65]
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoder(images), tuple(expected), rtol=1e-6, atol=1e-6)


def test_maps_are_those_of_segmentation_models_pytorch() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.encoders.get_encoder("mit_b0", weights=None).eval().double()
    encoder = build(TINY).eval().double()
    theirs.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        expected = theirs(IMAGES.double())[-4:]
        torch.testing.assert_close(encoder(IMAGES.double()), tuple(expected))


def test_imagenet_weights_are_downloaded_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = distinct(build(TINY))
    torch.save(state | HEAD, tmp_path / "pytorch_model.bin")
    hub = ModuleType("hub")

    def download(repository: str, file: str) -> str:
        assert repository == "nvidia/mit-b0"
        return str(tmp_path / file)

    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setattr(mit_weights, "require_extra", lambda *_args, **_kwargs: hub)
    encoder = build(replace(TINY, weights="imagenet"))
    assert encoder.provenance == "Hugging Face nvidia/mit-b0"
    assert all(torch.equal(t, state[n]) for n, t in encoder.state_dict().items())

    def offline(repository: str, file: str) -> str:
        raise OSError("no route")

    hub.hf_hub_download = offline  # type: ignore[attr-defined]
    with pytest.raises(
        InputError,
        match=r"could not be downloaded from nvidia/mit-b0 .*no route\): "
        r"where there is a network, `hf download nvidia/mit-b0 .* model.encoder.weights=none",
    ):
        build(replace(TINY, weights="imagenet"))
