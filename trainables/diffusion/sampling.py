"""Noise schedules and ODE samplers as plain functions. A denoiser is anything called (x, sigma) ->
D(x; σ).

A new sampler is one more function with the signature of `heun`, and a row of SAMPLERS; the state is
float64 throughout, as in Karras et al. 2022 (arXiv 2206.00364).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from trainables.config.measurement import AT_ONCE, Measurement
from trainables.errors import TrialFailed


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels σ_max … σ_min, then 0: [steps + 1] float64, falling (eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (first + ramp * (last - first)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _slope(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float) -> Tensor:
    """dx/dσ of the probability flow (eq. 3)."""
    return (x - denoise(x, x.new_full((len(x),), sigma)).to(x.dtype)) / sigma


def heun(denoise: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic second-order sampler (algorithm 1): standard normal latents [B, C, R, R] ->
    images of the same shape.

    `sigmas` [steps + 1] must fall to 0; the last step is an Euler step, so that σ = 0 is never
    evaluated.
    """
    levels = sigmas.tolist()  # numbers, so that no step waits for the device
    x: Tensor = latents.double() * levels[0]
    for sigma, sigma_next in itertools.pairwise(levels):
        d = _slope(denoise, x, sigma)
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            x_next = x + (sigma_next - sigma) * 0.5 * (d + _slope(denoise, x_next, sigma_next))
        x = x_next
    return x


def euler(denoise: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic first-order sampler, one network call per step; otherwise as `heun`."""
    levels = sigmas.tolist()  # numbers, so that no step waits for the device
    x: Tensor = latents.double() * levels[0]
    for sigma, sigma_next in itertools.pairwise(levels):
        x = x + (sigma_next - sigma) * _slope(denoise, x, sigma)
    return x


SAMPLERS = {"heun": heun, "euler": euler}


def draw_latents(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal latents [len(seeds), *shape] float64; each has a generator of its own, so
    none depends on the batch.

    Drawn on the CPU, so that every device samples from the same latents.
    """
    drawn = [
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(drawn).to(device)


def to_uint8(x: Tensor) -> Tensor:
    """[−1, 1] float -> 0 … 255 uint8, rounded to nearest and clipped: the inverse of
    `from_uint8`."""
    return (x * 127.5 + 127.5).round().clip(0, 255).to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    """0 … 255 uint8 -> [−1, 1] float32."""
    return x.float() / 127.5 - 1


PIXELS_ON_A_CPU = AT_ONCE * 3 * 32**2  # at once
PROBE = 8  # images whose memory is measured
SHARE = 0.5  # of the memory that is free: others may be on the device


def images_that_fit(
    denoise: Callable[[Tensor, Tensor], Tensor], shape: Sequence[int], device: torch.device
) -> int:
    """How many images of `shape` [C, R, R] are generated at once: AT_ONCE, or fewer, as memory has
    it.

    On a GPU by what the denoiser needs for PROBE images; elsewhere by the pixels alone.
    """
    if device.type != "cuda":
        return max(1, min(AT_ONCE, PIXELS_ON_A_CPU // math.prod(shape)))
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    denoise(torch.zeros((PROBE, *shape), device=device), torch.ones(PROBE, device=device))
    needed = (torch.cuda.max_memory_allocated(device) - held) / PROBE
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    return max(1, min(AT_ONCE, int(SHARE * free / needed)))


@torch.no_grad()
def sample(
    denoise: Callable[..., Tensor],
    seeds: Sequence[int],
    shape: Sequence[int],
    how: Measurement,
    device: torch.device,
    labels: Tensor | None = None,
    at_once: int | None = None,
) -> Tensor:
    """Generates one image per seed: [len(seeds), *shape] uint8 on the CPU. Raises TrialFailed if the
    denoiser makes numbers of one that are not finite.

    labels: [len(seeds)] int64, what the denoiser is given as `labels`, if anything; at_once: how
    many images, if the denoiser is made for a number; else `how.batch`, or as many as fit.
    """
    sigmas = karras_sigmas(how.sampler_steps, how.sigma_min, how.sigma_max, how.rho)
    solve, images, are_finite = SAMPLERS[how.sampler], [], []

    def with_labels(part: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        return denoise if part is None else partial(denoise, labels=part.to(device))

    size = at_once or how.batch
    if size is None:
        probed = None if labels is None else labels[:1].expand(PROBE)
        size = images_that_fit(with_labels(probed), shape, device)
    for start in range(0, len(seeds), size):
        batch = slice(start, start + size)
        latents = draw_latents(seeds[batch], shape, device)
        conditional = with_labels(None if labels is None else labels[batch])
        # left on the device, which works on while the next latents are drawn
        x = solve(conditional, latents, sigmas)
        are_finite.append(x.isfinite().flatten(1).all(1))
        images.append(to_uint8(x))
    n_broken = len(seeds) - int(torch.cat(are_finite).sum())
    if n_broken:
        raise TrialFailed(
            f"{n_broken} of {len(seeds)} generated images are not finite: the network gives NaN or "
            "infinity at some noise level; try a lower trainer.lr, or trainer.precision=fp32"
        )
    return torch.cat(images).cpu()
