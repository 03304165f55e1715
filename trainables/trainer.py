"""The training loop: a configuration, a subset and a seed in; weights and generated images out. No files, no Ray."""

import math
from typing import Any

import torch
from torch import Tensor

from trainables.config import Configuration, Measurement, StandardTrainer, derive_seed, identity, key_of
from trainables.diffusion import build_denoiser, denoising_loss
from trainables.errors import TrialFailed
from trainables.sampling import from_uint8, sample


class Trainer:
    """Trains one denoiser on one subset: images [N, C, R, R] uint8 on the CPU.

    All randomness is a function of (seed, images trained so far), so that a trainer that loads a state goes on as if it
    had never stopped. Raises TrialFailed if the device can't do the precision.
    """

    def __init__(self, configuration: Configuration, images: Tensor, seed: int, device: torch.device) -> None:
        self.recipe: StandardTrainer = configuration.trainer
        self.law, self.seed, self.device = configuration.diffusion, seed, device
        _set_precision(self.recipe.precision, device)
        self.images = images.to(device)
        self.total = self.recipe.train_images(len(images))
        self.position = 0  # images trained so far
        self.interrupted = False  # by whoever wants `train_until` to end early
        configured = key_of({part: identity(getattr(configuration, part)) for part in ("network", "diffusion", "trainer")})
        torch.manual_seed(derive_seed("initialization", configured, seed))
        self.denoiser = build_denoiser(configuration, from_uint8(images)).to(device)
        self.weights = list(self.denoiser.parameters())
        self.ema = [weight.detach().clone() for weight in self.weights]
        self.optimizer = self._optimizer()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_images = 0

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None if there is nothing to train, which also takes no images."""
        if not self.weights:
            self.total = 0
            return None
        r = self.recipe
        return torch.optim.Adam(self.weights, r.lr, r.betas, r.eps, weight_decay=r.weight_decay, fused=True)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 … 1."""
        return self.position / self.total if self.total else 1.0

    def train_until(self, progress: float) -> None:
        """Takes whole steps until the share `progress` of all images has been seen, or `interrupted` is set."""
        end = math.ceil(progress * self.total - 1e-6)
        self.denoiser.train()
        while self.position < end and not self.interrupted:
            self._step()

    def _step(self) -> None:
        assert self.optimizer is not None
        n, size = len(self.images), min(self.recipe.batch, self.total - self.position)
        torch.manual_seed(derive_seed("step", self.seed, self.position))  # noise levels, noise and dropout of this step
        batch = from_uint8(self.images[self._indices(n, size)])
        loss = denoising_loss(self.denoiser, self.law, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight in self.weights:
            if weight.grad is not None:  # as in Karras et al. 2022; a loss that stays non-finite fails the trial
                torch.nan_to_num(weight.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=weight.grad)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * lr_factor(self.recipe, n, self.position)
        self.optimizer.step()
        self.position += size
        decay = ema_decay(self.recipe, self.position)
        torch._foreach_lerp_(self.ema, [weight.detach() for weight in self.weights], 1 - decay)
        self.loss_sum += loss.detach() * size
        self.loss_images += size

    def _indices(self, n: int, size: int) -> Tensor:
        """The next `size` images of the sequence of epochs: [size] int64."""
        first, last = self.position // n, (self.position + size - 1) // n
        epochs = [self._epoch(n, epoch) for epoch in range(first, last + 1)]
        start = self.position - first * n
        return torch.cat(epochs)[start : start + size].to(self.device)

    def _epoch(self, n: int, epoch: int) -> Tensor:
        shuffle = epoch if self.recipe.order == "reshuffled" else 0
        return torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed("order", self.seed, shuffle)))

    def take_loss(self) -> float:
        """Mean loss per image since the last call. Raises TrialFailed if it is not finite."""
        loss = float(self.loss_sum) / max(self.loss_images, 1)
        self.loss_sum.zero_()
        self.loss_images = 0
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss is not finite after {self.position} images; try a lower trainer.lr")
        return loss

    def sample(self, seeds: list[int], how: Measurement) -> Tensor:
        """One image per seed, by the EMA of the weights: [len(seeds), C, R, R] uint8 on the CPU."""
        self.denoiser.eval()
        trained = [weight.detach().clone() for weight in self.weights]
        self._set_weights(self.ema)
        try:
            return sample(self.denoiser, seeds, tuple(self.images.shape[1:]), how, self.device)
        finally:
            self._set_weights(trained)

    def _set_weights(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, values, strict=True):
                weight.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a trainer of the same configuration, subset and seed needs to go on. On the trainer's device."""
        return {
            "position": self.position,
            "weights": [weight.detach() for weight in self.weights],
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "loss": (self.loss_sum, self.loss_images),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self._set_weights(state["weights"])
        self.load_sampling_weights(state["ema"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        loss_sum, self.loss_images = state["loss"]
        self.loss_sum = loss_sum.to(self.device)

    def sampling_weights(self) -> list[Tensor]:
        """A copy of the weights that `sample` uses, on the CPU."""
        return [value.to("cpu", copy=True) for value in self.ema]

    def load_sampling_weights(self, values: list[Tensor]) -> None:
        self.ema = [value.to(self.device, copy=True) for value in values]


def lr_factor(recipe: StandardTrainer, n: int, position: int) -> float:
    """Learning rate / `recipe.lr` for the step that begins after `position` images: linear warm-up, constant, linear decay."""
    warmup, total = recipe.warmup_images(n), recipe.train_images(n)
    rising = min((position + recipe.batch) / warmup, 1.0) if warmup else 1.0
    falling = min((total - position) / (recipe.decay * total), 1.0) if recipe.decay else 1.0
    return rising * falling


def ema_decay(recipe: StandardTrainer, position: int) -> float:
    """EMA decay of the step that ends after `position` images.

    In terms of the half-life in images, batch·ln ½ / ln decay; during ramp-up it is at most `ema_rampup`·position.
    """
    if recipe.ema_decay == 0:
        return 0.0
    halflife = recipe.batch * math.log(0.5) / math.log(recipe.ema_decay)
    if recipe.ema_rampup:
        halflife = min(halflife, recipe.ema_rampup * position)
    return float(0.5 ** (recipe.batch / halflife))


def _set_precision(precision: str, device: torch.device) -> None:
    """fp32 means IEEE arithmetic everywhere: what a machine would choose for itself is not part of an identity."""
    if precision == "tf32" and device.type != "cuda":
        raise TrialFailed("trainer.precision=tf32 needs an NVIDIA GPU, and this trial has none; use fp32")
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"  # type: ignore[attr-defined]
