"""What a search space would cost, without its data: sizes, and hours at a speed that is told or
measured."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.space import NamedConfiguration, SearchSpace
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.data.labels import planned_label_dim
from trainables.diffusion.denoiser import build_denoiser
from trainables.training.custom import check_custom
from trainables.training.trainer import Trainer

# What a search costs until it has found an EMM, by simulation (docs/search.md): in trainings at N =
# EMM where a trial costs N images, in trials where all cost the same.
SEARCH_COST = {"epochs": 4.3, "steps": 5.6}
CPU_FLOPS = 2e11  # of a step, at most, when a CPU is measured: seconds
SECONDS = 2.0  # that a measurement of a rate takes at least


@dataclass(frozen=True)
class Rates:
    """What a device does: images trained per second, network calls in sampling, of one image, per
    second."""

    trained: float
    sampled: float


@dataclass(frozen=True)
class PlannedConfiguration:
    """One configuration at the two ends of the range of N. `flops_per_image`: one forward pass, in
    FLOPs.

    `hours_*` of a trial, sampling included; `hours_search`: of the whole search, if the EMM is the
    (geometric) middle of the range. None where neither FLOPs nor rates are known: a trainer of the
    user's.
    """

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
    images_per_second: float | None
    hours_low: float | None
    hours_high: float | None
    hours_search: float | None


def plan(
    space: SearchSpace, tflops: float | None, device: torch.device | None = None
) -> list[PlannedConfiguration]:
    """Every configuration; hours on a device that sustains `tflops` TFLOP/s (a backward pass taken
    as two forward ones), or at the rates measured on `device`."""
    return [_planned(named, space, tflops, device) for named in space.configurations]


def _planned(
    named: NamedConfiguration, space: SearchSpace, tflops: float | None, device: torch.device | None
) -> PlannedConfiguration:
    configuration, trainer = named.configuration, named.configuration.trainer
    n_low, n_high = space.search.n_low, space.search.n_high
    parameters, flops = size_of(configuration, n_low)
    rates = (
        measured_rates(configuration, space.measurement, n_low, flops, device)
        if device
        else _told_rates(flops, tflops)
    )
    hours_low, hours_high, hours_middle = (
        _hours(rates, trainer.train_images(n) if parameters else 0, space.measurement)
        for n in (n_low, n_high, round(math.sqrt(n_low * n_high)))
    )
    return PlannedConfiguration(
        name=named.name,
        factors=named.factors,
        parameters=parameters,
        flops_per_image=flops,
        n_low=n_low,
        n_high=n_high,
        steps_low=trainer.train_steps(n_low),
        steps_high=trainer.train_steps(n_high),
        images_low=trainer.train_images(n_low),
        images_high=trainer.train_images(n_high),
        images_per_second=rates.trained if rates and device else None,
        hours_low=hours_low,
        hours_high=hours_high,
        hours_search=None if hours_middle is None else SEARCH_COST[trainer.clock] * hours_middle,
    )


def _hours(rates: Rates | None, trained: int, how: Measurement) -> float | None:
    if rates is None:
        return None
    snapshots = how.snapshots_of(trained)
    sampled = (how.n_samples + snapshots * how.n_selection) * how.network_calls
    return (trained / rates.trained + sampled / rates.sampled) / 3600


def _told_rates(flops: int, tflops: float | None) -> Rates | None:
    return Rates(tflops * 1e12 / flops / 3, tflops * 1e12 / flops) if flops and tflops else None


def measured_rates(
    configuration: Configuration, how: Measurement, n: int, flops: int, device: torch.device
) -> Rates | None:
    """Trains a few steps and samples a few images of noise on `device`; None for a trainer of the
    user's, or the optimum."""
    if configuration.trainer.kind == "custom" or configuration.network.kind == "optimum":
        return None
    recipe, data = configuration.trainer, configuration.data
    batch = (
        recipe.batch
        if device.type == "cuda"
        else max(1, min(recipe.batch, round(CPU_FLOPS / 3 / max(flops, 1))))
    )
    dim = planned_label_dim(configuration, n)
    images = torch.randint(
        0, 256, (max(dim, 2), data.channels, data.resolution, data.resolution), dtype=torch.uint8
    )
    short = with_fields(
        configuration, {"trainer.clock": "steps", "trainer.length": 10**9, "trainer.batch": batch}
    )
    trainer = Trainer(short, images, 0, device, torch.arange(len(images)) % dim if dim else None)
    few = how.model_copy(update={"sampler": "euler", "sampler_steps": 2, "batch": batch})

    def train() -> int:
        trainer.train_until((trainer.position + batch) / trainer.total)
        return batch

    def draw() -> int:
        trainer.sample(list(range(batch)), few, torch.arange(batch) % dim if dim else None)
        return 2 * batch

    return Rates(_rate(train, device), _rate(draw, device))


def _rate(work: Callable[[], int], device: torch.device) -> float:
    """Images per second of `work`, which says how many it did; the first time, which warms up, does
    not count."""
    work()
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        done += work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return done / (time.perf_counter() - begin)


def size_of(configuration: Configuration, n: int) -> tuple[int, int]:
    """Parameters at N = `n` (unique labels add some), and FLOPs of a forward pass per image.

    Counted on the meta device, so nothing is allocated; but a network of the user's is built and
    run on the CPU, and a trainer of the user's keeps both to itself: 0.
    """
    data, label_dim = configuration.data, planned_label_dim(configuration, n)
    check_custom(configuration, label_dim)
    if configuration.trainer.kind == "custom":
        return 0, 0
    with torch.device("cpu" if configuration.network.kind == "custom" else "meta"), torch.no_grad():
        denoiser = build_denoiser(
            configuration,
            torch.zeros(2, data.channels, data.resolution, data.resolution),
            label_dim,
        )
        x = torch.zeros(1, data.channels, data.resolution, data.resolution)
        with FlopCounterMode(display=False) as counter:
            denoiser(x, torch.ones(1), torch.zeros(1, dtype=torch.int64) if label_dim else None)
    return sum(parameter.numel() for parameter in denoiser.parameters()), counter.get_total_flops()
