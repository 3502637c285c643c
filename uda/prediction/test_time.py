"""Adaptation at test time: a network that adapts to the images that it is to predict.

Sources: "batch-norm": Schneider et al., NeurIPS 2020, arXiv 2006.16971. "tent": Wang et al., ICLR
2021, arXiv 2006.10726: entropy is minimized by weights and biases of normalization layers. Its
statistics are those of "batch-norm"; they carry no gradient.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.evaluation.batch_norm import batch_norms, check_prior
from uda.models.segmenter import Segmenter
from uda.objectives.functional.losses import entropy
from uda.optim.groups import norm_parameters
from uda.prediction.drift import Drift
from uda.utilities.errors import InputError, require

Method = Literal["batch-norm", "tent"]
Mode = Literal["episodic", "continual"]
PRIOR = 16.0  # images, as in arXiv 2006.16971
RATE = 1e-4  # of Adam
T = TypeVar("T")


class TestTimeAdapter:
    """A copy of a network that adapts to each image before it predicts it; the network itself stays
    as it is.

    "batch-norm": the statistics of each batch normalization layer become, for a pass over one
    image, a blend of the old ones, which count as `prior` images, and of the image's own. A layer
    that sees a single value per channel, as after pooling the image, keeps the old ones.
    "tent": moreover, one step of Adam at `rate` on the entropy of the image's prediction.

    "episodic": every image meets the network as it was trained; with "tent" it is predicted after
    the step, as the step would have no effect otherwise. "continual": an image is predicted before
    the step that it leads to, and what was learned stays: the parameters and, as the old
    statistics, the blended ones. When the network drifts (see `Drift`), it returns to the start,
    which then predicts the image, and goes on at half the rate.
    """

    __test__ = False  # not a test of pytest's

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        method: Method = "batch-norm",
        mode: Mode = "episodic",
        prior: float | None = None,
        rate: float | None = None,
    ) -> None:
        """`prior`: by default 16 images, where there is batch normalization; `rate`: 1e-4.

        Raises InputError when the network has nothing that the method could adapt, or when an
        option makes no sense or would change nothing.
        """
        require(
            isinstance(segmenter, Segmenter),
            f"the network is a {type(segmenter).__name__}; adaptation at test time is of one "
            "Segmenter, as uda.load returns it, not of an ensemble",
        )
        for name, value, kind in (("--adapt", method, Method), ("--adapt-mode", mode, Mode)):
            allowed = get_args(kind)
            require(value in allowed, f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        self.network = copy.deepcopy(segmenter).eval().requires_grad_(True)
        self._norms = batch_norms(self.network)
        self._learned = norm_parameters(self.network)
        _check_fits(method, self._norms, self._learned, prior)
        self.method, self.mode = method, mode
        self.prior = PRIOR if prior is None else prior
        check_prior("--adapt-prior", self.prior)
        require(
            self.prior > 0 or mode == "episodic" or method == "tent",
            "--adapt-prior 0 keeps nothing of the old statistics, so there is no state that "
            "--adapt-mode continual could carry: use a number above 0, or --adapt-mode episodic",
        )
        require(
            rate is None or (method == "tent" and rate > 0),
            f"--adapt-rate is {rate}; allowed: above 0, with --adapt tent only",
        )
        self.rate = RATE if rate is None else rate
        self.network.requires_grad_(False)
        for parameter in self._learned if method == "tent" else []:
            parameter.requires_grad_(True)
        # The names of the images at which the network returned to the start, in all streams.
        self.returned: list[str] = []
        self._stream: object = None
        self._old = [_statistics(layer) for layer in self._norms]
        self._start = [p.detach().clone() for p in self._learned], self._old
        for index, layer in enumerate(self._norms):
            layer.register_forward_pre_hook(self._blend(index))
        self.start_stream()

    @property
    def title(self) -> str:
        """What was done, in words, for the records of a prediction."""
        said = [f"{self.method}, {self.mode}"]
        if self._norms:
            said.append(f"old statistics count as {self.prior:g} images")
        if self.method == "tent":
            when = "after" if self.mode == "episodic" else "before"
            said.append(f"Adam {self.rate:g}, one step per image, which is predicted {when} it")
        if self.mode == "continual":
            said.append("every folder is a stream of its own")
        return ", ".join(said)

    def start_stream(self) -> None:
        """Forgets all that was learned, as before the first image."""
        self._return(self.rate)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W) float RGB in [0, 1], one after the other: with
        "continual", as the next frames of a stream."""
        return torch.cat([self.predict(one, partial(_logits, one)) for one in images.split(1)])

    def predict(
        self,
        image: Tensor,
        predicted: Callable[[Segmenter], T],
        *,
        name: str = "",
        stream: object = None,
    ) -> T:
        """What `predicted` makes of the network that has adapted to the image (1, 3, H, W) float.

        `predicted` may look at the image several times, scaled, mirrored or in parts: each look
        has its own statistics. `name`: of the image, for `returned`. Another `stream` than that of
        the image before starts anew.
        """
        image = image.to(self.device)
        if self.mode == "continual":
            if stream != self._stream:
                self.start_stream()
                self._stream = stream
            return self._predict_next(image, predicted, name)
        if self.method == "tent":
            self.start_stream()
            self._look(image)
            self._optimizer.step()
        return predicted(self.network)

    @property
    def device(self) -> torch.device:
        """That of the network."""
        return next(self.network.parameters()).device

    def _predict_next(self, image: Tensor, predicted: Callable[[Segmenter], T], name: str) -> T:
        """Continual: compares, predicts, and only then keeps what was learned."""
        start = self._logits_of_the_start(image)
        if self._drift.sees(self._look(image), start):
            (group,) = self._optimizer.param_groups
            self._return(group["lr"] / 2)
            self.returned.append(name)
            self._drift.sees(self._look(image), start)
        blended = [_statistics(layer) for layer in self._norms]
        found = predicted(self.network)
        self._old = blended
        if self.method == "tent":
            self._optimizer.step()
        return found

    def _return(self, rate: float) -> None:
        self._restore(*self._start)
        self._optimizer = torch.optim.Adam(self._learned, lr=rate)
        self._drift = Drift()

    def _look(self, image: Tensor) -> Tensor:
        """The network's logits (1, C, h, w), at its own stride; with "tent", gradients are left."""
        if self.method == "batch-norm":
            with torch.no_grad():
                return self.network.coarse(image).logits
        self._optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            logits = self.network.coarse(image).logits
            entropy(logits).backward()
        return logits.detach()

    @torch.no_grad()
    def _logits_of_the_start(self, image: Tensor) -> Tensor:
        present = [p.clone() for p in self._learned], self._old
        self._restore(*self._start)
        logits = self.network.coarse(image).logits
        self._restore(*present)
        return logits

    @torch.no_grad()
    def _restore(self, parameters: list[Tensor], statistics: list[tuple[Tensor, Tensor]]) -> None:
        for parameter, value in zip(self._learned, parameters, strict=True):
            parameter.copy_(value)
        self._old = statistics

    def _blend(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """A hook that gives the layer, before each pass, the statistics to normalize by."""

        @torch.no_grad()
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().transpose(0, 1).flatten(1).float()
            new = self._old[index]
            if values.shape[1] > 1:
                variance, mean = torch.var_mean(values, dim=1)
                share = self.prior / (self.prior + 1)
                new = tuple(  # type: ignore[assignment]
                    torch.lerp(own.to(old), old, share)
                    for own, old in zip((mean, variance), new, strict=True)
                )
            # Not in place: a pass whose gradient is wanted has kept the former ones.
            layer.running_mean, layer.running_var = new

        return hook


def _logits(image: Tensor, network: Segmenter) -> Tensor:
    logits: Tensor = network(image).logits
    return logits


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    return mean, variance


def _check_fits(
    method: Method, norms: list[_BatchNorm], learned: list[nn.Parameter], prior: float | None
) -> None:
    """Raises InputError, with what can be done, when the method has nothing to adapt."""
    instead = "adapt all of its weights with uda adapt, or predict without --adapt"
    if method == "tent":
        require(
            bool(learned),
            "--adapt tent learns weights and biases of normalization layers, and this network has "
            f"none: {instead}",
        )
        require(
            prior is None or bool(norms),
            f"--adapt-prior {prior} is of batch normalization, which this network has not: omit it",
        )
        return
    if not norms:
        if learned:
            count = len(learned)
            instead = f"use --adapt tent, for the {count} weights and biases of its other norms"
        raise InputError(
            "--adapt batch-norm blends statistics of batch normalization, and this network has "
            f"none: {instead}"
        )
