"""What a GPU gives: steps, samples, neighbours and small trainings, in ten minutes and one table each.

    python -m benchmarks.gpu_check [--only steps,small] [--json gpu.json] [--minutes 10]

Needs torch and `trainables`, downloads nothing, and writes nothing but the JSON file that it is asked
for. Row after row is begun while there are minutes left. A figure that can't be had (too little
memory, no compiler) is a row that says so. On a machine without a GPU it runs in small, which shows
that it runs.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.neighbours import with_cdist
from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from trainables.config.data import Cifar10
from trainables.config.diffusion import VP
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.sources import load
from trainables.diffusion.compiled import CompiledDenoiser
from trainables.measure.neighbours import PRODUCTS, Product, nearest_two
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.training.team import Team
from trainables.training.trainer import LONG_STEPS, Trainer
from trainables.trial.trial import Trial

Row = dict[str, Any]
Way = tuple[int, str, str, str]  # width, precision, layout, and one of `HOW`
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
WIDTHS, BATCH, SIDE = ((128, 320), 512, 32) if HAS_GPU else ((16, 24), 16, 16)
MICRO = {128: None, 320: 128}  # images on the device at once, so that every precision fits
HEUN = Measurement()  # 18 steps
SAMPLES = 500 if HAS_GPU else 8
SEEDS = 2 if HAS_GPU else 1
# a short training, and long ones, which search for the fastest convolutions (`Trainer`)
HOW = {
    "eager": {"length": LONG_STEPS - 1, "compile": False},
    "eager, search": {"length": LONG_STEPS, "compile": False},
    "compiled, search": {"length": LONG_STEPS, "compile": True},
}
LONG = {"trainer.clock": "steps", "trainer.length": LONG_STEPS - 1, "trainer.warmup": 0}


def wait() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Median wall time; what was queued before does not count."""
    taken = []
    for _ in range(repeats):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


@contextmanager
def timed(row: Row, name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    wait()
    row[name] = time.perf_counter() - begin


def colours(width: int, **trainer: Any) -> Configuration:
    """The paper's DDPM++ on 32×32 colour images."""
    recipe = StandardTrainer(**{"clock": "steps", "length": LONG_STEPS, "batch": BATCH} | trainer)
    return Configuration(
        data=Cifar10(), network=DDPMpp(width=width), diffusion=VP(), trainer=recipe
    )


def trainer_of(
    configuration: Configuration, n: int = 2000, side: int = SIDE, kind: type[Trainer] = Trainer
) -> Trainer:
    """On images of noise."""
    generator = torch.Generator().manual_seed(0)
    size = (n, configuration.data.channels, side, side)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return kind(configuration, images, 0, DEVICE)


def train(trainer: Trainer, steps: int) -> None:
    trainer.train_until((trainer.position + steps * trainer.recipe.batch) / trainer.total)


def step_seconds(trainer: Trainer, steps: int, rounds: int = 3) -> float:
    """Of steps that follow one another: only at the end is the device waited for."""
    return seconds_of(lambda: train(trainer, steps), rounds) / steps


def flops_of(trainer: Trainer) -> int:
    """Of the network, for one image, forward."""
    image = torch.zeros((1, *trainer.images.shape[1:]), device=DEVICE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer.denoiser(image, torch.ones(1, device=DEVICE))
    return counter.get_total_flops()


def matrix_flops() -> float:
    """Per second, of a product of large bf16 matrices: what can be had at all."""
    side = 8192 if HAS_GPU else 512
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / seconds_of(lambda: torch.mm(a, b), 10)


# ---------------------------------------------------------------- parts


def card() -> list[Row]:
    row: Row = {"device": torch.cuda.get_device_name() if HAS_GPU else "CPU"}
    row |= {"torch": torch.__version__, "CUDA": str(torch.version.cuda)}
    if HAS_GPU:
        row["GiB"] = torch.cuda.get_device_properties(0).total_memory / 2**30
        row["cards"] = torch.cuda.device_count()
    row["bf16 product, TFLOP/s"] = matrix_flops() / 1e12
    return [row]


def steps(ways: Sequence[Way]) -> Iterator[Row]:
    """Training steps, all of them: loss, gradients, Adam, EMA; and sampling, Heun of 18 steps."""
    peak = matrix_flops()
    first: dict[int, tuple[float, float]] = {}
    for way in ways:
        row: Row = dict(zip(("width", "precision", "layout", "how"), way, strict=True))
        width = way[0]
        if HAS_GPU:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            with timed(row, "begin, s"):
                trainer = make(*way)
                train(trainer, 2)
            # a row that compiles takes minutes, and may be all that there is time for
            print(f"{way}: begun in {row['begin, s']:.0f} s", file=sys.stderr)
            if trainer.is_compiled and not isinstance(trainer.denoise, CompiledDenoiser):
                row["how"] = "compiler failed"
            step = step_seconds(trainer, 3)
            row |= {"step, ms": 1000 * step, "images/s": BATCH / step}
            row["of the bf16 product"] = 3 * flops_of(trainer) * BATCH / step / peak
            if HAS_GPU:
                row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
            samples = SAMPLES if width == WIDTHS[0] else SAMPLES // 4
            sampling = seconds_of(partial(trainer.sample, list(range(samples)), HEUN), 1) / samples
            row["samples/s"] = 1 / sampling
            first.setdefault(width, (step, sampling))
            row["step, ×"], row["sampling, ×"] = first[width][0] / step, first[width][1] / sampling
        except Exception as error:  # noqa: BLE001  # a row that says so
            row["step, ms"] = said(error)
        trainer = None  # before the next one is made
        yield row


def usual_ways() -> list[Way]:
    """The plain way of each width first, and the one that the trainer chooses for a long training."""
    narrow, wide = WIDTHS
    precisions = ("fp32", "tf32", "bf16") if HAS_GPU else ("fp32", "bf16")
    eager = [(narrow, p, layout, "eager") for p in precisions for layout in IN_LAYOUT]
    best = ("bf16", "channels-last", "compiled, search")
    return [*eager, (narrow, *best), (wide, "fp32", "contiguous", "eager"), (wide, *best)]


def other_ways() -> list[Way]:
    """Those that are compiled take two to four minutes before the first step (docs/performance.md)."""
    others = (("bf16", "contiguous"), ("tf32", "channels-last"), ("fp32", "contiguous"))
    plain = [(WIDTHS[0], "fp32", "contiguous", how) for how in ("eager", "eager, search")]
    return [*plain, *[(WIDTHS[0], *other, "compiled, search") for other in others]]


def make(width: int, precision: str, layout: str, how: str) -> Trainer:
    micro = MICRO.get(width)
    configuration = colours(width, precision=precision, micro_batch=micro, **HOW[how])
    return trainer_of(configuration, kind=IN_LAYOUT[layout])


class ChannelsFirst(Trainer):
    def _has_channels_last(self) -> bool:
        return False


class ChannelsLast(Trainer):
    def _has_channels_last(self) -> bool:
        return True


IN_LAYOUT: dict[str, type[Trainer]] = {"contiguous": ChannelsFirst, "channels-last": ChannelsLast}


def small() -> Iterator[Row]:
    """Steps and samples of the digits demo (8×8, width 16, batch 64), where launches cost most."""
    for precision, is_compiled in (("fp32", False), ("fp32", True), ("bf16", True)):
        row: Row = {"precision": precision, "compiled": is_compiled}
        try:
            changes = LONG | {"trainer.precision": precision, "trainer.compile": is_compiled}
            with timed(row, "begin, s"):
                trainer = trainer_of(with_fields(DIGITS, changes), 24, 8)
                train(trainer, 20)
            row["step, ms"] = 1000 * step_seconds(trainer, 200 if HAS_GPU else 10)
            how = DIGITS_MEASUREMENT
            trainer.sample(list(range(64)), how)
            row["500 samples, s"] = seconds_of(partial(trainer.sample, list(range(500)), how), 3)
        except Exception as error:  # noqa: BLE001  # a row that says so
            row["step, ms"] = said(error)
        yield row


def parts_of_a_step() -> Iterator[Row]:
    """What the data path adds to a step on one batch that stays."""
    for n in (16, 5000):
        for order in ("cycled", "reshuffled"):
            trainer = trainer_of(
                colours(WIDTHS[0], precision="bf16", order=order, compile=False), n
            )
            train(trainer, 2)
            taken: dict[str, list[float]] = {"own": [], "fixed": []}
            chosen, whole = trainer.order.indices(0, BATCH), trainer.order.indices
            for _ in range(4):
                trainer.order.indices = whole  # type: ignore[method-assign]
                taken["own"].append(step_seconds(trainer, 3, 1))
                trainer.order.indices = lambda *_, c=chosen: c  # type: ignore[method-assign]
                taken["fixed"].append(step_seconds(trainer, 3, 1))
            own, fixed = (statistics.median(values) for values in taken.values())
            row: Row = {
                "N": n,
                "order": order,
                "step, ms": 1000 * own,
                "fixed batch, ms": 1000 * fixed,
            }
            yield row | {"data path": own / fixed - 1}


def neighbours() -> Iterator[Row]:
    sizes = ((2000, 20_000), (10_000, 50_000)) if HAS_GPU else ((200, 1000),)
    for n, training in sizes:
        generator = torch.Generator().manual_seed(0)
        x, y = (
            torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)
            for rows in (n, training)
        )
        found = None
        ways: dict[str, Callable[[], Any]] = {
            **{p.__name__: partial(d1_by, p, x, y) for p in PRODUCTS},
            "cdist + topk": partial(d1_by_cdist, x, y),
        }
        for name, way in ways.items():
            row: Row = {"samples": n, "training": training, "way": name}
            try:
                distances = way()
                found = distances if found is None else found
                row["seconds"] = seconds_of(way, 2)
                row["largest difference"] = float(np.abs(distances - found).max())
            except Exception as error:  # noqa: BLE001  # a row that says so
                row["seconds"] = said(error)
            yield row


def d1_by(product: Product, x: Tensor, y: Tensor) -> np.ndarray:
    return nearest_two(x, y, DEVICE, product=product).d1


def d1_by_cdist(x: Tensor, y: Tensor) -> np.ndarray:
    return with_cdist(x, y, DEVICE)[:, 0]


def two_at_once() -> Iterator[Row]:
    """Small trials on one card, each in a process of its own, as a sweep runs them with
    --gpus-per-trial .5."""
    context = multiprocessing.get_context("spawn")
    alone = None
    for count in (1, 2, 4) if HAS_GPU else (1, 2):
        with context.Pool(count, _meet_at, [context.Barrier(count)]) as pool:
            rates = pool.map(small_rate, range(count), chunksize=1)
        alone = alone or rates[0]
        yield {"trials": count, "steps/s in all": sum(rates), "against one": sum(rates) / alone}


_barrier: Any = None  # of the processes of a pool


def _meet_at(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def small_rate(_: int) -> float:
    """Steps per second, once all processes are ready."""
    trainer = trainer_of(with_fields(DIGITS, LONG), 24, 8)
    train(trainer, 20)
    _barrier.wait()
    return 1 / step_seconds(trainer, 300 if HAS_GPU else 30, 1)


def together() -> Iterator[Row]:
    """One trial on several devices, a process each; without GPUs, on as many cores, one thread each."""
    torch.set_num_threads(torch.get_num_threads() if HAS_GPU else 1)
    counts = [n for n in (1, 2, 4, 8) if n <= (torch.cuda.device_count() if HAS_GPU else 2)]
    width = WIDTHS[0] if HAS_GPU else 64
    alone = None
    for count in counts:
        configuration = colours(width, precision="bf16" if HAS_GPU else "fp32", compile=HAS_GPU)
        size = (2000, 3, SIDE, SIDE)
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        devices = [torch.device(DEVICE.type, n) if HAS_GPU else DEVICE for n in range(count)]
        team = Team(devices) if count > 1 else None
        trainer = build_trainer(configuration, images, None, 0, devices[0], team)
        assert isinstance(trainer, Trainer)
        train(trainer, 2)
        step = step_seconds(trainer, 3)
        alone = alone or step
        row: Row = {"devices": count, "width": width, "batch": BATCH, "step, ms": 1000 * step}
        yield row | {"images/s": BATCH / step, "against one": alone / step}
        if team is not None:
            team.close()


def trainings() -> Iterator[Row]:
    """Whole trials of the demo: fp32 and bf16, and the CPU from the same seeds."""
    data = load(DIGITS.data)
    devices = [(DEVICE, "fp32"), (DEVICE, "bf16"), (torch.device("cpu"), "fp32")]
    for n in (24, 32):
        for device, precision in devices if HAS_GPU else devices[:2]:
            row: Row = {"N": n, "device": device.type, "precision": precision}
            results, begin = [], time.perf_counter()
            for seed in range(SEEDS):
                changes = {"network.width": 8, "trainer.precision": precision}
                configuration = with_fields(DIGITS, changes)
                spec = TrialSpec(
                    name="check",
                    configuration=configuration,
                    measurement=DIGITS_MEASUREMENT,
                    n=n,
                    seed=seed,
                )
                with tempfile.TemporaryDirectory() as directory:
                    trial = Trial(spec, data, Storage(directory), device)
                    while trial.result is None:
                        trial.step()
                results.append(trial.result)
            row["R_mem"] = " ".join(f"{result.r_mem:.3f}" for result in results)
            for number in range(4):
                losses = [result.curve[number].loss or 0 for result in results]
                row[f"loss {number + 1}/4"] = statistics.mean(losses)
            row["s a trial"] = (time.perf_counter() - begin) / len(results)
            yield row


def curve() -> Iterator[Row]:
    """The same seed on the GPU and the CPU with the CPU's noise: weights after so many steps."""
    images, batch = torch.from_numpy(load(DIGITS.data).images[:64]), DIGITS.trainer.batch
    noise = [torch.randn(batch, 1, 8, 8) for _ in range(64)]
    sigma = [torch.rand(batch) + 0.05 for _ in range(64)]
    trainers = [Trainer(DIGITS, images, 0, device) for device in (DEVICE, torch.device("cpu"))]
    begin = torch.cat([weight.detach().cpu().flatten() for weight in trainers[1].weights])
    for trainer in trainers:
        trainer.batch_loss = Fixed(trainer, sigma, noise)
    for number in (1, 4, 16, 64):
        for trainer in trainers:
            trainer.train_until(number * batch / trainer.total)
        ours, theirs = (
            torch.cat([weight.detach().cpu().flatten() for weight in trainer.weights])
            for trainer in trainers
        )
        moved = float((theirs - begin).norm())
        losses = [trainer.take_loss() for trainer in trainers]
        yield {
            "steps": number,
            "loss": losses[0],
            "loss on the CPU": losses[1],
            "weights differ, of their way": float((ours - theirs).norm()) / moved,
        }


class Fixed:
    """The denoising loss with noise from a list, by position."""

    def __init__(self, trainer: Trainer, sigma: list[Tensor], noise: list[Tensor]) -> None:
        self.trainer, self.loss = trainer, trainer.batch_loss
        self.sigma, self.noise = sigma, noise

    def __call__(
        self, denoiser: nn.Module, law: Any, images: Tensor, labels: Tensor | None, _: Any
    ) -> Tensor:
        number = self.trainer.position // self.trainer.recipe.batch
        noise = self.sigma[number].to(images.device), self.noise[number].to(images.device)
        return self.loss(denoiser, law, images, labels, noise)


PARTS: dict[str, Callable[[], Any]] = {
    "card": card,
    "curve": curve,
    "neighbours": neighbours,
    "steps": lambda: steps(usual_ways()),
    "small": small,
    "data-path": parts_of_a_step,
    "together": together,
    "two-at-once": two_at_once,
    "trainings": trainings,
    "other-steps": lambda: steps(other_ways() if HAS_GPU else []),
}


# ---------------------------------------------------------------- what is shown


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"


def cell(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )


def show(rows: Iterator[Row], deadline: float) -> list[Row]:
    """Prints each row as soon as it is there, as a table whose columns are those of the first; no
    row is begun after the deadline."""
    shown: list[Row] = []
    while time.monotonic() < deadline:
        row = next(rows, None)
        if row is None:
            return shown
        if not shown:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        names = shown[0] if shown else row
        print("| " + " | ".join(cell(row.get(name, "–")) for name in names) + " |", flush=True)
        shown.append(row)
    print("(no time left)")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", help="file for all rows")
    given = parser.parse_args()
    begin, kept = time.monotonic(), {}
    for name in given.only.split(","):
        print(f"\n## {name}")
        kept[name] = show(iter(PARTS[name]()), begin + 60 * given.minutes)
        if given.json:
            with open(given.json, "w") as file:
                json.dump(kept, file, indent=1)
    print(f"\n{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
