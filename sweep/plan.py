"""What a search space would cost, without training anything and without its data."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.space import SearchSpace
from trainables.config import Configuration
from trainables.custom import check_custom
from trainables.diffusion import build_denoiser
from trainables.labels import planned_label_dim


@dataclass(frozen=True)
class PlannedConfiguration:
    """One configuration at the two ends of the range of N. `flops_per_image`: one forward pass, in FLOPs."""

    name: str
    factors: dict[str, Any]
    parameters: int
    flops_per_image: int
    n_low: int
    n_high: int
    steps_low: int
    steps_high: int
    images_low: int
    images_high: int
    hours_low: float
    hours_high: float


def plan(space: SearchSpace, tflops: float) -> list[PlannedConfiguration]:
    """Every configuration; hours on a device that sustains `tflops` TFLOP/s, a backward pass taken as two forward ones."""
    return [_planned(named.name, named.factors, named.configuration, space, tflops) for named in space.configurations]


def _planned(
    name: str, factors: dict[str, Any], configuration: Configuration, space: SearchSpace, tflops: float
) -> PlannedConfiguration:
    parameters, flops = size_of(configuration, space.search.n_low)
    trainer, search, how = configuration.trainer, space.search, space.measurement
    n_low, n_high = search.n_low, search.n_high

    def hours(n: int) -> float:
        trained = trainer.train_images(n) if parameters else 0
        snapshots = how.snapshots_of(trainer.train_images(n))
        sampled = (how.n_samples + snapshots * how.n_selection) * (2 * how.sampler_steps - 1)
        return flops * (3 * trained + sampled) / (tflops * 1e12) / 3600

    return PlannedConfiguration(
        name=name,
        factors=factors,
        parameters=parameters,
        flops_per_image=flops,
        n_low=n_low,
        n_high=n_high,
        steps_low=trainer.train_steps(n_low),
        steps_high=trainer.train_steps(n_high),
        images_low=trainer.train_images(n_low),
        images_high=trainer.train_images(n_high),
        hours_low=hours(n_low),
        hours_high=hours(n_high),
    )


def size_of(configuration: Configuration, n: int) -> tuple[int, int]:
    """Parameters at N = `n` (unique labels add some), and FLOPs of a forward pass per image.

    Counted on the meta device, so nothing is allocated; but a network of the user's is built and run on the CPU, and a
    trainer of the user's keeps both to itself: 0.
    """
    data, label_dim = configuration.data, planned_label_dim(configuration, n)
    check_custom(configuration, label_dim)
    if configuration.trainer.kind == "custom":
        return 0, 0
    with torch.device("cpu" if configuration.network.kind == "custom" else "meta"), torch.no_grad():
        denoiser = build_denoiser(configuration, torch.zeros(2, data.channels, data.resolution, data.resolution), label_dim)
        x = torch.zeros(1, data.channels, data.resolution, data.resolution)
        with FlopCounterMode(display=False) as counter:
            denoiser(x, torch.ones(1), torch.zeros(1, dtype=torch.int64) if label_dim else None)
    return sum(parameter.numel() for parameter in denoiser.parameters()), counter.get_total_flops()
