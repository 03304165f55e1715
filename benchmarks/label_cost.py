"""What many labels cost: seconds of a training step with 50,000 unique labels, relative to unconditional training.

    python benchmarks/label_cost.py [--width 128] [--batch 512] [--labels 50000] [--steps 10] [--device cuda]

DDPM++ on 32×32 colour images. A step is all of it: loss, backward pass, the gradient's clean-up, Adam and EMA over every
weight, the table of labels included, whose cost does not depend on the batch. Both are timed in turn; medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from trainables.config import VP, Cifar10, Configuration, DDPMpp, StandardTrainer
from trainables.diffusion import build_denoiser, denoising_loss


def training_step(width: int, batch: int, label_dim: int, device: torch.device) -> Callable[[], None]:
    configuration = Configuration(data=Cifar10(), network=DDPMpp(width=width), diffusion=VP(), trainer=StandardTrainer())
    denoiser = build_denoiser(configuration, torch.empty(0), label_dim).to(device)
    weights = list(denoiser.parameters())
    ema = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, 2e-4, fused=True)
    images = torch.rand(batch, 3, 32, 32, device=device) * 2 - 1

    def step() -> None:
        labels = torch.randint(label_dim, (batch,), device=device) if label_dim else None
        optimizer.zero_grad(set_to_none=True)
        denoising_loss(denoiser, configuration.diffusion, images, labels).backward()
        for weight in weights:
            torch.nan_to_num(weight.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=weight.grad)
        optimizer.step()
        torch._foreach_lerp_(ema, [weight.detach() for weight in weights], 1 - 0.99929)

    return step


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
    steps = {label_dim: training_step(given.width, given.batch, label_dim, device) for label_dim in (0, given.labels)}
    for step in steps.values():
        seconds(step, device)  # the first one allocates
    times: dict[int, list[float]] = {label_dim: [] for label_dim in steps}
    for _ in range(given.steps):
        for label_dim, step in steps.items():
            times[label_dim].append(seconds(step, device))
    plain, labelled = (statistics.median(taken) for taken in times.values())
    print(f"width {given.width}, batch {given.batch}, {device.type}, median of {given.steps} steps")
    print(f"no labels {plain:.3f} s, {given.labels:,} labels {labelled:.3f} s: ratio {labelled / plain:.3f}")


if __name__ == "__main__":
    main()
