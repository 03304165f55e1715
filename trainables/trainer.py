"""The training loop: a configuration, a subset and a seed in; weights and generated images out. No files, no Ray."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainables.config import Configuration, Measurement, StandardTrainer, derive_seed, described, key_of
from trainables.diffusion import build_denoiser, denoising_loss, draw_noise
from trainables.errors import TrialFailed
from trainables.labels import label_dim
from trainables.sampling import draw_latents, from_uint8, sample

N_NOT_FINITE = 10  # batches in a row whose loss is not finite, after which a trial fails


class Trainer:
    """Trains one denoiser on one subset: images [N, C, R, R] uint8 on the CPU, labels [N] int64 if it is conditional.

    All randomness is a function of (seed, images trained so far), so that a trainer that loads a state goes on as if it
    had never stopped. Raises TrialFailed if the device can't do the precision.
    """

    def __init__(
        self, configuration: Configuration, images: Tensor, seed: int, device: torch.device, labels: Tensor | None = None
    ) -> None:
        assert isinstance(configuration.trainer, StandardTrainer)
        self.recipe = configuration.trainer
        self.law, self.seed, self.device = configuration.diffusion, seed, device
        _set_precision(self.recipe.precision, device)
        self.images, self.labels = images.to(device), None if labels is None else labels.to(device)
        self.total = self.recipe.train_images(len(images))
        self.position = 0  # images trained so far
        torch.manual_seed(derive_seed("initialization", key_of(described(configuration)), seed))
        dim = label_dim(configuration.labels, None if labels is None else labels.numpy())
        self.denoiser = build_denoiser(configuration, from_uint8(images), dim, labels).to(device)
        self.weights = list(self.denoiser.parameters())
        self.ema = [weight.detach().clone() for weight in self.weights]
        self.optimizer = self._optimizer()
        self.losses = Losses(device)

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None if there is nothing to train, which also takes no images."""
        if not self.weights:
            self.total = 0
            return None
        r = self.recipe
        if r.optimizer == "sgd":
            return torch.optim.SGD(self.weights, r.scaled_lr, momentum=r.betas[0], weight_decay=r.weight_decay, fused=True)
        kind = torch.optim.AdamW if r.optimizer == "adamw" else torch.optim.Adam
        return kind(self.weights, r.scaled_lr, r.betas, r.eps, weight_decay=r.weight_decay, fused=True)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 … 1."""
        return self.position / self.total if self.total else 1.0

    def train_until(self, progress: float) -> None:
        """Takes whole steps until the share `progress` of all images has been seen.

        Raises TrialFailed if the losses of N_NOT_FINITE batches in a row were not finite.
        """
        end = math.ceil(progress * self.total - 1e-6)
        self.denoiser.train()
        while self.position < end:
            self._step()
        if self.losses.longest_failure >= N_NOT_FINITE:
            raise self._not_finite()

    def _not_finite(self) -> TrialFailed:
        return TrialFailed(f"the loss is not finite after {self.position} images; try a lower trainer.lr")

    def _step(self) -> None:
        assert self.optimizer is not None
        n, size = len(self.images), min(self.recipe.batch, self.total - self.position)
        torch.manual_seed(derive_seed("step", self.seed, self.position))  # noise, flips and dropout of this step, in this order
        chosen = self._indices(n, size)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(from_uint8(self.images[chosen]), None if self.labels is None else self.labels[chosen])
        for weight in self.weights:
            if weight.grad is not None:  # as in Karras et al. 2022; a loss that stays non-finite fails the trial
                torch.nan_to_num(weight.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=weight.grad)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.scaled_lr * lr_factor(self.recipe, n, self.position)
        self.optimizer.step()
        self.position += size
        decay = ema_decay(self.recipe, self.position)
        torch._foreach_lerp_(self.ema, [weight.detach() for weight in self.weights], 1 - decay)
        self.losses.add(loss, size)

    def _gradients(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Adds the gradients of a batch to the weights', `micro_batch` images at a time; returns its mean loss.

        Noise and flips are drawn for the whole batch, so that only dropout depends on how it is cut.
        """
        sigma, epsilon = draw_noise(self.law, images)
        if self.recipe.augment == "flip":
            mirrored = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
        loss = torch.zeros((), device=images.device)
        micro = self.recipe.micro_batch or len(images)
        for start in range(0, len(images), micro):
            cut = slice(start, start + micro)
            of_cut = None if labels is None else labels[cut]
            mean = denoising_loss(self.denoiser, self.law, images[cut], of_cut, (sigma[cut], epsilon[cut]))
            part = mean * (len(images[cut]) / len(images))
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        return loss

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
        """Mean loss per image since the last call, over the batches with a finite one; 0 if there were no batches.

        Raises TrialFailed if there were batches and none had a finite loss.
        """
        mean = self.losses.take()
        if not math.isfinite(mean):
            raise self._not_finite()
        return mean

    def sample(self, seeds: list[int], how: Measurement, labels: Tensor | None = None) -> Tensor:
        """One image per seed, by the EMA of the weights: [len(seeds), C, R, R] uint8 on the CPU; labels [len(seeds)]."""
        with self._averaged():
            return sample(self.denoiser, seeds, tuple(self.images.shape[1:]), how, self.device, labels)

    @torch.no_grad()
    def denoising_error(self, images: Tensor, sigma: float, labels: Tensor | None = None) -> float:
        """(D(y + σε; σ) − y)², mean over images y and pixels, by the EMA of the weights; the noise ε never changes.

        images [n, C, R, R] uint8, sigma > 0 in the unit of pixels in [−1, 1], labels [n] int64.
        """
        total, size = 0.0, self.recipe.micro_batch or self.recipe.batch
        with self._averaged():
            for start in range(0, len(images), size):
                y = from_uint8(images[start : start + size].to(self.device))
                seeds = [derive_seed("denoising error", start + i) for i in range(len(y))]
                noisy = y + sigma * draw_latents(seeds, y.shape[1:], self.device).float()
                of = None if labels is None else labels[start : start + size].to(self.device)
                total += float((self.denoiser(noisy, y.new_full((len(y),), sigma), of) - y).square().mean((1, 2, 3)).sum())
        return total / len(images)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Evaluation, by the EMA of the weights."""
        self.denoiser.eval()
        trained = [weight.detach().clone() for weight in self.weights]
        self._set_weights(self.ema)
        try:
            yield
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
            "losses": self.losses.values,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self._set_weights(state["weights"])
        self.load_sampling_weights(state["ema"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.losses.values = state["losses"].to(self.device, copy=True)

    def sampling_weights(self) -> list[Tensor]:
        """A copy of the weights that `sample` uses, on the CPU."""
        return [value.to("cpu", copy=True) for value in self.ema]

    def load_sampling_weights(self, values: list[Tensor]) -> None:
        self.ema = [value.to(self.device, copy=True) for value in values]


class Losses:
    """The losses of batches, summed on the device, so that no step waits for it.

    values: [5] float64: since the last `take`, the sum of loss × images over the batches with a finite loss, their images, and
    those of the other batches; the number of the last batches in a row without a finite loss, the largest it has been.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, images: int) -> None:
        """The mean loss of a batch, a scalar."""
        finite = loss.isfinite()
        self.values[0] += torch.where(finite, loss, 0.0).double() * images
        self.values[1] += finite * images
        self.values[2] += ~finite * images
        self.values[3] = torch.where(finite, 0.0, self.values[3] + 1)
        self.values[4] = self.values[3:].amax()

    def take(self) -> float:
        """Mean per image of the batches with a finite loss, since the last call; NaN if all batches were without."""
        total, finite, other = self.values[:3].tolist()
        self.values[:3] = 0
        return total / finite if finite else (math.nan if other else 0.0)

    @property
    def longest_failure(self) -> int:
        return int(self.values[4])


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
