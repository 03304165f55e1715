"""What torch must be asked for in a plan: how fast a device is, and how large a network of the
user's."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sweep.run.rates import Rates
from trainables.config.code import in_a_line
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.data.labels import planned_label_dim
from trainables.diffusion.denoiser import build_denoiser
from trainables.errors import TrialFailed, UserError
from trainables.networks.sizes import Size
from trainables.training.build import build_trainer
from trainables.training.custom import check_custom
from trainables.training.trainer import Trainer

CPU_FLOPS = 2e11  # of a step, at most, when a CPU is measured: seconds
SECONDS = 2.0  # that a measurement of a rate takes at least


def measured_rates(
    configuration: Configuration,
    how: Measurement,
    n: int,
    flops: int,
    device: torch.device,
    threads: int = 1,
) -> Rates | None:
    """Trains a few steps and samples a few images of noise on `device`, with as many threads as a
    trial will get; None for the optimum. Raises TrialFailed for what a trainer of the user's does
    wrong, and UserError for what code of the user's raises."""
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if configuration.trainer.kind == "custom":
            return _rates_of_yours(configuration, how, n, device)
        if configuration.network.kind == "optimum":
            return None
        return _rates_of_ours(configuration, how, n, flops, device)
    except (UserError, TrialFailed):
        raise
    except Exception as error:
        if "custom" not in (configuration.trainer.kind, configuration.network.kind):
            raise
        raise UserError(
            f"code of yours, when it was measured, raised {in_a_line(error)}"
        ) from error
    finally:
        torch.set_num_threads(former)


def _noise(configuration: Configuration, n: int) -> Tensor:
    """[n, C, R, R] uint8, as training images."""
    data = configuration.data
    shape = n, data.channels, data.resolution, data.resolution
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _rates_of_yours(
    configuration: Configuration, how: Measurement, n: int, device: torch.device
) -> Rates:
    """A trainer of the user's is asked for ever more images, and built again at its end."""
    dim = planned_label_dim(configuration, n)
    images, labels = _noise(configuration, n), torch.arange(n) % dim if dim else None
    build = partial(build_trainer, configuration, images, labels, 0, device)
    trainer, more = build(), configuration.trainer.batch
    few = min(how.at_once, configuration.trainer.batch)

    def train() -> int:
        nonlocal trainer, more
        if trainer.progress >= 1:
            trainer = build()
        before, more = trainer.position, min(2 * more, trainer.total)
        trainer.train_until(min(1.0, (before + more) / trainer.total))
        return trainer.position - before

    def draw() -> int:
        trainer.sample(list(range(few)), how, torch.arange(few) % dim if dim else None)
        return few * how.network_calls

    return Rates(_rate(train, device), _rate(draw, device))


def _rates_of_ours(
    configuration: Configuration, how: Measurement, n: int, flops: int, device: torch.device
) -> Rates:
    recipe = configuration.trainer
    batch = recipe.batch
    if device.type != "cuda":
        affordable = round(CPU_FLOPS / 3 / max(flops, 1))  # a step costs three forward passes
        batch = max(1, min(batch, affordable))
    dim = planned_label_dim(configuration, n)
    images = _noise(configuration, max(dim, 2))
    # as many steps as the training of N = n has: by them it decides what pays
    steps = recipe.train_steps(n)
    short = with_fields(
        configuration, {"trainer.clock": "steps", "trainer.length": steps, "trainer.batch": batch}
    )
    trainer = Trainer(short, images, 0, device, torch.arange(len(images)) % dim if dim else None)
    few = how.model_copy(update={"sampler": "euler", "sampler_steps": 2, "batch": batch})

    def train() -> int:
        trainer.position = 0  # it may be short
        trainer.train_until(batch / trainer.total)
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


def counted_size(configuration: Configuration, label_dim: int) -> Size:
    """By torch's own counter, on the meta device, so that nothing is allocated; but a network of
    the user's is checked, built and run on the CPU."""
    check_custom(configuration, label_dim)
    data = configuration.data
    with torch.device("cpu" if configuration.network.kind == "custom" else "meta"), torch.no_grad():
        denoiser = build_denoiser(
            configuration,
            torch.zeros(2, data.channels, data.resolution, data.resolution),
            label_dim,
        )
        x = torch.zeros(1, data.channels, data.resolution, data.resolution)
        with FlopCounterMode(display=False) as counter:
            denoiser(x, torch.ones(1), torch.zeros(1, dtype=torch.int64) if label_dim else None)
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    return Size(parameters, counter.get_total_flops())
