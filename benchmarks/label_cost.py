"""What many labels cost: seconds of a training step with 50,000 unique labels, relative to
unconditional training.

    python benchmarks/label_cost.py [--width 128] [--batch 512] [--labels 50000] [--steps 10] [--device cuda]

DDPM++ on 32×32 colour images. A step is the trainer's, all of it: loss, backward pass, Adam and EMA
over every weight, the table of labels included, whose cost does not depend on the batch. Both are
timed in turn; medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from trainables.config.data import Cifar10
from trainables.config.diffusion import VP
from trainables.config.fields import with_fields
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.training.trainer import Trainer


def training_step(
    width: int, batch: int, n_labels: int, device: torch.device
) -> Callable[[], None]:
    """A step of the trainer on `n_labels` images of noise, each with a label of its own; or on 2,
    without."""
    recipe = StandardTrainer(clock="steps", length=1_000_000, batch=batch)
    configuration = Configuration(
        data=Cifar10(), network=DDPMpp(width=width), diffusion=VP(), trainer=recipe
    )
    if n_labels:
        configuration = with_fields(configuration, {"labels.kind": "unique"})
    images = torch.randint(0, 256, (n_labels or 2, 3, 32, 32), dtype=torch.uint8)
    trainer = Trainer(
        configuration, images, 0, device, torch.arange(n_labels) if n_labels else None
    )
    return lambda: trainer.train_until((trainer.position + batch) / trainer.total)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Wall time on a GPU; CPU time of all threads on a CPU, which other processes disturb less."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begin = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("width", 128), ("batch", 512), ("labels", 50_000), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    steps = {n: training_step(given.width, given.batch, n, device) for n in (0, given.labels)}
    for step in steps.values():
        seconds(step, device)  # the first one allocates
    times: dict[int, list[float]] = {n: [] for n in steps}
    for _ in range(given.steps):
        for n, step in steps.items():
            times[n].append(seconds(step, device))
    plain, labelled = (statistics.median(taken) for taken in times.values())
    print(f"width {given.width}, batch {given.batch}, {device.type}, median of {given.steps} steps")
    print(
        f"no labels {plain:.3f} s, {given.labels:,} labels {labelled:.3f} s: ratio {labelled / plain:.3f}"
    )


if __name__ == "__main__":
    main()
