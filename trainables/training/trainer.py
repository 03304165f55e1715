"""The training loop: a configuration, a subset and a seed in; weights and generated images out. No
files, no Ray."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.config.diffusion import Diffusion
from trainables.config.identity import derive_seed
from trainables.config.measurement import Measurement
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.labels import label_dim
from trainables.diffusion.compiled import CompiledDenoiser, compiled
from trainables.diffusion.denoiser import (
    denoising_loss,
    draw_noise,
    initial_denoiser,
    network_of,
    trained_names,
)
from trainables.diffusion.sampling import draw_latents, from_uint8, sample
from trainables.errors import TrialFailed
from trainables.training.memory import keep_freed
from trainables.training.noise import FixedNoise
from trainables.training.order import Order
from trainables.training.team import ALONE, Ranks
from trainables.training.vectors import Vectors

N_NOT_FINITE = 10  # batches in a row whose loss is not finite, after which a trial fails

# steps of a training on a GPU from which on a minute or two of preparation (compiling, a choice of
# convolutions) pays, whatever the network
LONG_STEPS = 20_000

# of a denoiser under a law, on images in [−1, 1], labels, and (noise levels, noise): a scalar
BatchLoss = Callable[[nn.Module, Diffusion, Tensor, Tensor | None, tuple[Tensor, Tensor]], Tensor]


class Trainer:
    """Trains one denoiser on one subset: images [N, C, R, R] uint8 on the CPU, labels [N] int64 if
    it is conditional.

    All randomness is a function of (seed, images trained so far), so that a trainer that loads a
    state goes on as if it had never stopped. Raises TrialFailed if the device can't do the
    precision. batch_loss: what is minimized, the mean over a batch.
    """

    batch_loss: BatchLoss

    def __init__(
        self,
        configuration: Configuration,
        images: Tensor,
        seed: int,
        device: torch.device,
        labels: Tensor | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        assert isinstance(configuration.trainer, StandardTrainer)
        self.ranks = ranks
        self.recipe = configuration.trainer
        self.law, self.seed, self.device = configuration.diffusion, seed, device
        set_precision(self.recipe.precision, device)
        keep_freed(device)
        self.images, self.labels = images.to(device), None if labels is None else labels.to(device)
        # tries all convolutions there are: 48 s for a width of 128 (compiled, some minutes), and 1.4
        # × the speed in fp32
        torch.backends.cudnn.benchmark = self._is_long()
        self.total = self.recipe.train_images(len(images))
        self.position = 0  # images trained so far
        self.interrupted = False  # by whoever wants `train_until` to end early
        dim = label_dim(configuration.labels, None if labels is None else labels.numpy())
        initial = initial_denoiser(configuration, seed, from_uint8(images), dim, labels)
        self.denoiser = initial.to(device)
        self.weights = [weight for weight in self.denoiser.parameters() if weight.requires_grad]
        self.is_compiled = bool(self.weights) and self._is_to_compile()
        if self._has_channels_last():  # the parameters stay the same objects
            self.denoiser.to(memory_format=torch.channels_last)
        # the weights' own memory from now on, and as much for their gradients and averages
        self.values, self.gradients, self.averages = (Vectors(self.weights) for _ in range(3))
        for weight, view in zip(self.weights, self.values.views, strict=True):
            weight.data = view
        self.optimizer = self._optimizer()
        is_reshuffled = self.recipe.order == "reshuffled"
        self.order = Order(len(images), seed, is_reshuffled, device)
        self.fixed_noise: FixedNoise | None = None
        if self.recipe.noise_draws is not None:
            on_cpu = Order(len(images), seed, is_reshuffled, torch.device("cpu"))
            shape = tuple(images.shape[1:])
            self.fixed_noise = FixedNoise(
                self.recipe.noise_draws, self.law, on_cpu, seed, shape, device
            )
        # what trains and samples: the denoiser, or the same one compiled
        self.denoise = self._compiled() if self.is_compiled else self.denoiser
        self.losses = Losses()
        self.batch_loss = denoising_loss

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """None if there is nothing to train, which also takes no images."""
        if not self.weights:
            self.total = 0
            return None
        for vector, gradient in zip(self.values.vectors, self.gradients.vectors, strict=True):
            vector.grad = gradient
        recipe, vectors = self.recipe, self.values.vectors
        common: dict[str, Any] = {
            "lr": recipe.scaled_lr,
            "weight_decay": recipe.weight_decay,
            "fused": True,
        }
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(vectors, momentum=recipe.betas[0], **common)
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        return kind(vectors, betas=recipe.betas, eps=recipe.eps, **common)

    def _is_long(self) -> bool:
        """On a GPU, and worth minutes of preparation."""
        steps = self.recipe.train_steps(len(self.images))
        return self.device.type == "cuda" and steps >= LONG_STEPS

    def _is_to_compile(self) -> bool:
        return self._is_long() if self.recipe.compile is None else self.recipe.compile

    def _has_channels_last(self) -> bool:
        """As tensor cores want them, which fp32 doesn't use. Not compiled, and on CPUs, group norms
        lose more than they gain."""
        has_tensor_cores = self.device.type == "cuda" and self.recipe.precision != "fp32"
        return has_tensor_cores and self.is_compiled

    def _compiled(self) -> nn.Module:
        """For the images that are on the device at once."""
        share = -(-min(self.recipe.batch, self.total) // self.ranks.size)
        size = min(self.recipe.micro_batch or share, share)
        chosen = torch.arange(size, device=self.device) % len(self.images)
        labels = None if self.labels is None else self.labels[chosen]
        return compiled(self.denoiser, from_uint8(self.images[chosen]), labels)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 … 1."""
        return self.position / self.total if self.total else 1.0

    def train_until(self, progress: float) -> None:
        """Takes whole steps until the share `progress` of all images has been seen, or
        `interrupted` is set.

        Raises TrialFailed if the losses of N_NOT_FINITE batches in a row were not finite.
        """
        end = math.ceil(progress * self.total - 1e-6)
        self.denoise.train()
        while self.position < end and not self.interrupted:
            self._step()
        if self._settle() >= N_NOT_FINITE:
            raise self._not_finite()

    def _settle(self) -> int:
        """See `Losses.settle`."""
        return self.losses.settle(self.ranks)

    def _not_finite(self) -> TrialFailed:
        return TrialFailed(
            f"the loss is not finite after {self.position} images; try a lower trainer.lr"
        )

    def _step(self) -> None:
        assert self.optimizer is not None
        n, size = len(self.images), min(self.recipe.batch, self.total - self.position)
        # noise, flips and dropout of this step, in this order
        torch.manual_seed(derive_seed("step", self.seed, self.position))
        chosen = self.order.indices(self.position, size)
        labels = None if self.labels is None else self.labels[chosen]
        loss = self._take_gradients(from_uint8(self.images[chosen]), labels)
        for gradient in self.gradients.vectors:
            self.ranks.add_up(gradient)
            # as in Karras et al. 2022; a loss that stays non-finite fails the trial
            torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.scaled_lr * self.recipe.lr_factor(n, self.position)
        self.optimizer.step()
        self.position += size
        decay = ema_decay(self.recipe, self.position)
        torch._foreach_lerp_(self.averages.vectors, self.values.vectors, 1 - decay)
        self.losses.pending.append((loss, size))

    def _take_gradients(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Fills `gradients` with those of this member's share of a batch, `micro_batch` images at a
        time; returns its part of the batch's mean loss.

        Noise and flips are drawn for the whole batch, so that only dropout depends on how it is
        cut.
        """
        if self.fixed_noise is None:
            sigma, epsilon = draw_noise(self.law, images)
        else:
            sigma, epsilon = self.fixed_noise.at(self.position, len(images))
        if self.recipe.augment == "flip":
            mirrored = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
        if self.ranks.rank:  # other masks of dropout than those of the first member
            torch.manual_seed(derive_seed("dropout", self.seed, self.position, self.ranks.rank))
        loss = torch.zeros((), device=images.device)
        share = self.ranks.share(len(images))
        micro = self.recipe.micro_batch or len(images)
        if share.start == share.stop:  # of a last batch, smaller than the team
            self.gradients.clear()
        for start in range(share.start, share.stop, micro):
            cut = slice(start, min(start + micro, share.stop))
            cut_labels = None if labels is None else labels[cut]
            noise = sigma[cut], epsilon[cut]
            mean = self.batch_loss(self.denoise, self.law, images[cut], cut_labels, noise)
            part = mean * (len(images[cut]) / len(images))
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            # at once: a CUDA graph writes the next ones to the same place
            self.gradients.take_gradients(self.weights, are_added=start > share.start)
        return loss

    def take_loss(self) -> float:
        """Mean loss per image since the last call, over the batches with a finite one; 0 if there
        were no batches.

        Raises TrialFailed if there were batches and none had a finite loss.
        """
        mean = self.losses.take()
        if not math.isfinite(mean):
            raise self._not_finite()
        return mean

    def sample(
        self, seeds: list[int], measurement: Measurement, labels: Tensor | None = None
    ) -> Tensor:
        """One image per seed, by the EMA of the weights: [len(seeds), C, R, R] uint8 on the CPU;
        labels [len(seeds)]."""
        shape = tuple(self.images.shape[1:])
        with self._averaged():
            at_once = self.denoise.batch if isinstance(self.denoise, CompiledDenoiser) else None
            return sample(self.denoise, seeds, shape, measurement, self.device, labels, at_once)

    @torch.no_grad()
    def denoising_errors(
        self, images: Tensor, sigma: float, labels: Tensor | None = None
    ) -> NDArray[np.float64]:
        """[n], (D(y + σε; σ) − y)² of each image y, mean over its pixels, by the EMA of the
        weights; the noise ε depends on its position alone.

        images [n, C, R, R] uint8, sigma > 0 in the unit of pixels in [−1, 1], labels [n] int64.
        """
        parts, size = [np.empty(0)], self.recipe.micro_batch or self.recipe.batch
        with self._averaged():
            for start in range(0, len(images), size):
                y = from_uint8(images[start : start + size].to(self.device))
                seeds = [derive_seed("denoising error", start + i) for i in range(len(y))]
                noisy = y + sigma * draw_latents(seeds, y.shape[1:], self.device).float()
                levels = y.new_full((len(y),), sigma)
                part = None if labels is None else labels[start : start + size].to(self.device)
                errors = (self.denoise(noisy, levels, part) - y).square().mean((1, 2, 3))
                parts.append(errors.cpu().double().numpy())
        return np.concatenate(parts)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Evaluation, by the EMA of the weights."""
        self.denoise.eval()
        trained = [vector.clone() for vector in self.values.vectors]
        self.values.take(self.averages.vectors)
        try:
            yield
        finally:
            self.values.take(trained)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a trainer of the same configuration, subset and seed needs to go on. On
        the trainer's device."""
        return {
            "position": self.position,
            "weights": self.values.views,
            "ema": self.averages.views,
            "optimizer": self.values.state_of_each(self.optimizer) if self.optimizer else {},
            "losses": self.losses.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.values.fill(state["weights"])
        self.load_sampling_weights(state["ema"])
        if self.optimizer:
            self.values.load_state_of_each(self.optimizer, state["optimizer"])
        # a checkpoint of an older version has none
        self.losses.state = state.get("losses", (0.0, 0, 0, 0))

    def sampling_weights(self) -> dict[str, Tensor]:
        """A copy of the state dict of the network that `sample` uses, on the CPU; nothing of the
        closed-form optimum."""
        with self._averaged():
            return {
                name: value.to("cpu", copy=True).contiguous()
                for name, value in network_of(self.denoiser).state_dict().items()
                if isinstance(value, Tensor)  # a module may keep other things beside
            }

    def load_sampling_weights(self, values: Mapping[str, Tensor] | Sequence[Tensor]) -> None:
        """values: also a list of the trained ones in their order, as older versions kept it."""
        if isinstance(values, Mapping):
            values = [values[name] for name in trained_names(network_of(self.denoiser))]
        self.averages.fill(values)


class Losses:
    """The losses of batches; looked at once a slice, so that no step waits for the device."""

    def __init__(self) -> None:
        # mean loss of a batch, a scalar on the device, and its number of images
        self.pending: list[tuple[Tensor, int]] = []
        # since `take`: of the batches with a finite loss, and images of the others
        self.sum, self.images, self.skipped = 0.0, 0, 0
        self.failures = 0  # number of the last batches in a row whose loss is not finite

    def settle(self, ranks: Ranks = ALONE) -> int:
        """Counts what is pending, of all members; returns the largest number of batches in a row
        whose loss was not finite."""
        longest, values = self.failures, []
        if self.pending:
            losses = torch.stack([loss for loss, _ in self.pending])
            ranks.add_up(losses)
            values = losses.tolist()
        for loss, (_, images) in zip(values, self.pending, strict=True):
            if math.isfinite(loss):
                self.sum += loss * images
                self.images += images
                self.failures = 0
            else:
                self.skipped += images
                self.failures += 1
            longest = max(longest, self.failures)
        self.pending = []
        return longest

    def take(self) -> float:
        """Mean per image of the batches with a finite loss, since the last call; NaN if all batches
        were without."""
        mean = math.nan if self.skipped else 0.0
        if self.images:
            mean = self.sum / self.images
        self.sum, self.images, self.skipped = 0.0, 0, 0
        return mean

    @property
    def state(self) -> tuple[float, int, int, int]:
        """What is settled."""
        return self.sum, self.images, self.skipped, self.failures

    @state.setter
    def state(self, values: tuple[float, int, int, int]) -> None:
        self.sum, self.images, self.skipped, self.failures = values


def ema_decay(recipe: StandardTrainer, position: int) -> float:
    """EMA decay of the step that ends after `position` images.

    In terms of the half-life in images, batch·ln ½ / ln decay; during ramp-up it is at most
    `ema_rampup`·position.
    """
    if recipe.ema_decay == 0:
        return 0.0
    halflife = recipe.batch * math.log(0.5) / math.log(recipe.ema_decay)
    if recipe.ema_rampup:
        halflife = min(halflife, recipe.ema_rampup * position)
    return float(0.5 ** (recipe.batch / halflife))


def set_precision(precision: str, device: torch.device) -> None:
    """fp32 means IEEE arithmetic everywhere: what a machine would choose for itself is not part of
    an identity."""
    if precision == "tf32" and device.type != "cuda":
        raise TrialFailed(
            "trainer.precision=tf32 needs an NVIDIA GPU, and this trial has none; use fp32"
        )
    arithmetic = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = arithmetic
    torch.backends.cudnn.conv.fp32_precision = arithmetic  # type: ignore[attr-defined]
