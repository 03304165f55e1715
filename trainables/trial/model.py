"""A trained model, used again: what a finished trial was measured with, for sampling and as
D(x; σ). Nothing is trained, no Ray."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from trainables.config.network import CustomNetwork, Optimum
from trainables.config.training import CustomTrainer, StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.images import ImageData
from trainables.data.labels import label_dim
from trainables.data.pools import Ints, UInt8
from trainables.diffusion.denoiser import initial_denoiser, network_of, trained_names
from trainables.diffusion.sampling import draw_latents, from_uint8, sample
from trainables.errors import DamagedFile, UserError
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.training.trainer import set_precision
from trainables.trial import weights as kept_weights
from trainables.trial.again import check_data
from trainables.trial.result import MEASUREMENT, Result, read_measurement, trial_directory
from trainables.trial.subset import Subset, latent_seeds, sample_labels
from trainables.trial.trial import choose_device

Draw = Callable[[list[int], Tensor | None], Tensor]  # seeds, labels -> [n, C, R, R] uint8


@dataclass(frozen=True, eq=False)
class Model:
    """The model of a finished trial: its best snapshot, with the EMA of the weights.

    denoiser: D(x; σ), a module called (x, sigma, labels), in evaluation and without gradients of
    its weights; None where a trainer of the user's samples by itself. labels: [N] int64, of the
    training images, None without conditioning; label_dim: how many there are, 0 without.
    """

    result: Result
    device: torch.device
    draw: Draw
    denoiser: nn.Module | None
    labels: Ints | None

    def __repr__(self) -> str:
        spec, r_mem = self.result.spec, self.result.r_mem
        return f"<model of {spec.name}, {spec.title}: R_mem {r_mem:.3f}, on {self.device}>"

    @property
    def configuration(self) -> Configuration:
        return self.result.configuration

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: (channels, resolution, resolution)."""
        data = self.configuration.data
        return data.channels, data.resolution, data.resolution

    @property
    def label_dim(self) -> int:
        return label_dim(self.configuration.labels, self.labels)

    @property
    def network(self) -> nn.Module:
        """The network inside D, called (x, noise_level, labels). Raises UserError if there is
        none."""
        return network_of(self._denoiser())

    def denoise(self, x: Tensor, sigma: Tensor | float, labels: ArrayLike | None = None) -> Tensor:
        """D(x; σ), the expected clean image: x [B, C, R, R], pixels in [−1, 1] plus noise of standard
        deviation sigma > 0 (a number or [B]) -> float32 of its shape. labels: an int or [B], which
        a conditional model needs. Differentiable in x.

        Raises UserError for a shape or label that does not fit, and without a denoiser.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise UserError(
                f"x: [B, {', '.join(map(str, self.shape))}] is needed, not {[*x.shape]}"
            )
        if self.label_dim and labels is None:
            raise UserError(f"labels: this model is conditional; give 0 … {self.label_dim - 1}")
        given = None if labels is None else torch.from_numpy(self.checked(labels, len(x)))
        levels = torch.as_tensor(sigma, device=self.device).expand(len(x))
        on_device = None if given is None else given.to(self.device)
        denoised: Tensor = self._denoiser()(x.to(self.device), levels, on_device)
        return denoised

    def sample(self, count: int, seed: int = 0, labels: ArrayLike | None = None) -> UInt8:
        """Images number 0 … count − 1 of a seed: [count, C, R, R] uint8, by the trial's sampler.

        With the trial's own seed these are the images that it was judged by (as many as
        `result.n_samples`; then new ones), with another one they are new. An image depends on seed,
        number and label alone. labels: an int or [count]; None: `drawn_labels`. Raises UserError.
        """
        seeds, at_once = self.latent_seeds(count, seed), self.result.measurement.at_once
        given = self.drawn_labels(count, seed) if labels is None else self.checked(labels, count)
        on_cpu = None if given is None else torch.from_numpy(given)
        images = []
        for start in range(0, count, at_once):  # as the trial did: no other rounding
            batch = slice(start, start + at_once)
            images.append(self.draw(seeds[batch], None if on_cpu is None else on_cpu[batch]))
        return torch.cat(images).numpy()

    def drawn_labels(self, count: int, seed: int = 0) -> Ints | None:
        """The labels that `sample` takes if it is given none, [count] int64: drawn as in the trial's
        own sampling, from those of its training images; None without conditioning."""
        if self.labels is None:
            return None
        return sample_labels(self.result.spec, self.labels, self.latent_seeds(count, seed))

    def latents(self, count: int, seed: int = 0) -> Tensor:
        """Standard normal noise that `sample` begins with, σ_max times as large: [count, C, R, R]
        float64."""
        return draw_latents(self.latent_seeds(count, seed), self.shape, self.device)

    def latent_seeds(self, count: int, seed: int = 0) -> list[int]:
        """What the latents of images number 0 … count − 1 are drawn by. Raises UserError if one of
        them is no whole number, or there is no image."""
        for name, value, least in (("count", count, 1), ("seed", seed, 0)):
            if not isinstance(value, int | np.integer) or value < least:
                raise UserError(
                    f"{name}: a whole number of at least {least} is needed, not {value!r}"
                )
        spec = self.result.spec
        if seed != spec.seed:  # also where all trials have one set of latents
            own = spec.measurement.model_copy(update={"protocol": "own"})
            spec = spec.model_copy(update={"seed": int(seed), "measurement": own})
        return latent_seeds(spec, self.result.data.digest, "final", 0, int(count))

    def checked(self, labels: ArrayLike, count: int) -> Ints:
        """[count] int64. Raises UserError for labels that this model does not know."""
        dim, given = self.label_dim, np.asarray(labels)
        if not dim:
            raise UserError("labels: this model is unconditional; leave them out")
        is_whole = np.issubdtype(given.dtype, np.integer) and given.shape in ((), (count,))
        if not is_whole or not ((given >= 0) & (given < dim)).all():
            raise UserError(f"labels: one of 0 … {dim - 1}, or {count} of them, are needed")
        return np.broadcast_to(given, count).astype(np.int64)

    def _denoiser(self) -> nn.Module:
        if self.denoiser is None:
            raise UserError(
                "trainer.kind=custom: its trainer samples by itself, so that there is no network "
                "called as D(x; σ); .sample works"
            )
        return self.denoiser


def open_model(
    result: Result,
    sweep: Storage,
    data: Callable[[], ImageData],
    device: str | None = None,
    trust_code: bool = False,
) -> Model:
    """The model of a finished trial in the storage of its sweep.

    data: loads the images that it was trained on, which only the closed-form optimum and a trainer
    of the user's need. device: as torch calls it; None: a GPU if there is one. trust_code: whether
    code that the trial names may be run. Raises UserError if it names some and may not, if there is
    no such device, if its weights are lost or no longer those of its network, and as `check_data`
    does.
    """
    code = _code_of(result.configuration)
    if code is not None and not trust_code:
        raise UserError(
            f"{code}: the trial names code outside of this package, and only you know whose sweep "
            "it is; say trust_code=True (--trust-code) to have it run"
        )
    on = _device(device)
    weights = kept_weights.read(trial_directory(sweep, result.training_key))
    if weights is None:
        raise UserError(
            f"{result.spec.name}, {result.spec.title}: its weights are lost or damaged "
            f"(trials/{result.training_key}); emm trial SPACE --config {shlex.quote(result.spec.name)} "
            f"--n {result.spec.n} --seed {result.spec.seed} --out ELSEWHERE trains it again"
        )
    configuration = result.configuration
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # it is the caller's
        if isinstance(configuration.trainer, CustomTrainer):
            return _of_custom_trainer(result, weights, on, _subset(result, data, on))
        if isinstance(configuration.network, Optimum):
            subset = _subset(result, data, on)
            return _of_denoiser(result, weights, on, subset.labels, subset.images)
        return _of_denoiser(result, weights, on, _labels(result, sweep, data, on))


def _code_of(configuration: Configuration) -> str | None:
    """Code of the user's that sampling would run."""
    network, trainer = configuration.network, configuration.trainer
    if isinstance(trainer, CustomTrainer):
        return f"trainer.builder={trainer.builder}"
    return f"network.builder={network.builder}" if isinstance(network, CustomNetwork) else None


def _device(name: str | None) -> torch.device:
    if name is None:
        return choose_device()
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # of a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise UserError(f"device {name}: torch can't use it here ({reason})") from None


def _subset(result: Result, data: Callable[[], ImageData], device: torch.device) -> Subset:
    loaded = data()
    check_data(result, loaded)
    return Subset(result.spec, loaded, device)


def _labels(
    result: Result, sweep: Storage, data: Callable[[], ImageData], device: torch.device
) -> Ints | None:
    """Of the training images, [N]; as the trial kept them, so that the data are not needed."""
    if result.configuration.labels.kind == "none":
        return None
    kept = read_measurement(sweep, result) or {}
    labels = kept.get("subset_labels")
    if labels is None:  # of a version that did not keep them
        return _subset(result, data, device).labels
    if labels.shape != (result.spec.n,) or not np.issubdtype(labels.dtype, np.integer):
        raise DamagedFile(f"trials/{result.training_key}/{MEASUREMENT}: its labels are damaged")
    return labels.astype(np.int64)


def _of_custom_trainer(result: Result, weights: Any, device: torch.device, subset: Subset) -> Model:
    spec = result.spec
    trainer = build_trainer(
        spec.configuration, subset.images, subset.label_tensor, spec.seed, device
    )
    trainer.load_sampling_weights(weights)

    def draw(seeds: list[int], labels: Tensor | None) -> Tensor:
        return trainer.sample(seeds, spec.measurement, labels)

    return Model(result, device, draw, None, subset.labels)


def _of_denoiser(
    result: Result,
    weights: Mapping[str, Tensor] | Sequence[Tensor],
    device: torch.device,
    labels: Ints | None,
    images: Tensor | None = None,
) -> Model:
    """images: the training subset [N, C, R, R] uint8, of the closed-form optimum."""
    configuration, data = result.configuration, result.configuration.data
    assert isinstance(configuration.trainer, StandardTrainer)
    shape = data.channels, data.resolution, data.resolution
    trained_on = torch.zeros(1, *shape) if images is None else from_uint8(images)
    dim = label_dim(configuration.labels, labels)
    of_images = None if labels is None else torch.from_numpy(labels)
    denoiser = initial_denoiser(configuration, result.spec.seed, trained_on, dim, of_images)
    _load(network_of(denoiser), weights, result)
    denoiser.to(device).eval().requires_grad_(False)
    if device.type == "cuda":  # elsewhere a network trained in TF32 is used in fp32
        set_precision(configuration.trainer.precision, device)

    def draw(seeds: list[int], given: Tensor | None) -> Tensor:
        return sample(denoiser, seeds, shape, result.measurement, device, given)

    return Model(result, device, draw, denoiser, labels)


def _load(
    network: nn.Module, weights: Mapping[str, Tensor] | Sequence[Tensor], result: Result
) -> None:
    """weights: a state dict, or, of older versions, a list of what was trained."""
    names = trained_names(network)
    try:
        named = weights if isinstance(weights, Mapping) else dict(zip(names, weights, strict=True))
        found = network.load_state_dict(named, strict=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    else:
        lost = [*set(found.missing_keys) & set(names), *found.unexpected_keys]
        if not lost:
            return
        reason = f"{min(lost)} is not on both sides"
    raise UserError(
        f"{result.spec.name}, {result.spec.title}: its weights do not fit its network ({reason}); "
        "was its code changed since?"
    )
