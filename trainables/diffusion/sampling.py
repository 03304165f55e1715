"""Noise schedules and ODE samplers as plain functions. A denoiser is anything called (x, sigma) ->
D(x; σ).

A new sampler is one more function with the signature of `heun`, and a row of SAMPLERS; the state is
float64 throughout, as in Karras et al. 2022 (arXiv 2206.00364).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from trainables.config.measurement import Measurement


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels σ_max … σ_min, then 0: [steps + 1] float64, falling (eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (first + ramp * (last - first)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _slope(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
    """dx/dσ of the probability flow (eq. 3)."""
    return (x - denoise(x, sigma.expand(len(x))).to(x.dtype)) / sigma


def heun(denoise: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic second-order sampler (algorithm 1): standard normal latents [B, C, R, R] ->
    images of the same shape.

    `sigmas` [steps + 1] must fall to 0; the last step is an Euler step, so that σ = 0 is never
    evaluated.
    """
    x = latents.double() * sigmas[0]
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = _slope(denoise, x, sigma)
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            x_next = x + (sigma_next - sigma) * 0.5 * (d + _slope(denoise, x_next, sigma_next))
        x = x_next
    return x


def euler(denoise: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic first-order sampler, one network call per step; otherwise as `heun`."""
    x = latents.double() * sigmas[0]
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:], strict=True):
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


@torch.no_grad()
def sample(
    denoise: Callable[..., Tensor],
    seeds: Sequence[int],
    shape: Sequence[int],
    how: Measurement,
    device: torch.device,
    labels: Tensor | None = None,
) -> Tensor:
    """Generates one image per seed: [len(seeds), *shape] uint8 on the CPU, `how.batch` images at a
    time.

    labels: [len(seeds)] int64, what the denoiser is given as `labels`, if anything.
    """
    sigmas = karras_sigmas(how.sampler_steps, how.sigma_min, how.sigma_max, how.rho).to(device)
    solve, images = SAMPLERS[how.sampler], []
    for start in range(0, len(seeds), how.batch):
        batch = slice(start, start + how.batch)
        conditional = denoise
        if labels is not None:
            conditional = partial(denoise, labels=labels[batch].to(device))
        latents = draw_latents(seeds[batch], shape, device)
        images.append(to_uint8(solve(conditional, latents, sigmas)).cpu())
    return torch.cat(images)
