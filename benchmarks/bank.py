"""Trains a bank of real trials, so that searches can be replayed on what trainings really do.

    python -m benchmarks.bank [--minutes 120] [--only digits-width8] [--processes 2]

Every configuration of TABLE is trained at each of its sizes N with its seeds: those of NAMES with
5,000 to 5,018, by which what a search believes was chosen, those of HELD_OUT with 5,019 to 5,030,
which have had no part in any choice. The same command goes on where an earlier one ended: trials in
the files are not trained again. Seeds are the outermost loop, so that a bank that is stopped at any
time is balanced.

`benchmarks/bank/NAME.json` holds one configuration: `configuration` and `measurement` as in a
sweep, `versions` of packages (all with which one of its trials was trained), and `trials`, one a line:
  n, seed        N, and what decides initialization, order and noise of the training
  subset_seed    decides the images and the latents; it is `seed`, except in a crossed file
  r_mem …        numbers of trainables.trial.result.Result by their names; a failed trial has a `cause`
  seconds        wall time; cpu_seconds: of the one core that it shared with whatever else ran
  curve          at each snapshot: images_trained, loss, r_mem, median_d1, loss_gap
Distances are L2 in pixel values 0–255; floats have 5 significant digits.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from trainables.config.fields import with_fields
from trainables.config.trial import Configuration, TrialSpec
from trainables.errors import TrialFailed
from trainables.trial.result import Result

BANK = Path(__file__).parent / "bank"
FIRST_SEED = 5000
SEEDS, ALL_SEEDS = 12, 19  # after SEEDS of them seeds are crossed; then it goes on to ALL_SEEDS
PACKAGES = ("torch", "numpy", "scipy", "pydantic", "scikit-learn", "mlxtend")
MEASUREMENT = with_fields(DIGITS_MEASUREMENT, {"snapshots": 8, "n_selection": 250})
CURVE = ("images_trained", "loss", "r_mem", "median_d1", "loss_gap")
KEYS = {"training_key", "measurement_key", "configuration_key"}
LEFT_OUT = KEYS | {"spec", "data", "curve", "hardware", "finished_at"}  # of a result


# The demo's recipe as it was at first, whose seeds disagree.
RESTLESS = with_fields(
    DIGITS, {"trainer.warmup": 50, "trainer.decay": 0.6, "trainer.betas": (0.9, 0.99)}
)


@dataclass(frozen=True)
class Row:
    """A configuration, by what it changes in a recipe, and the sizes of its trials."""

    sizes: tuple[int, ...]
    changes: dict[str, Any]
    crossed: int = 0  # so many subset seeds, each with so many other seeds
    recipe: Configuration = RESTLESS
    seeds: range = range(FIRST_SEED, FIRST_SEED + ALL_SEEDS)

    @property
    def configuration(self) -> Configuration:
        return with_fields(self.recipe, self.changes)


WIDTH_8 = {"network.width": 8}
# A U-Net's step takes 25 to 50 ms on the core where this was made, such an MLP's 4 to 6 ms. On 8×8
# pixels a wider MLP memorizes less (N = 24: .42 at width 256, against .60 at width 128 on 4×4).
SMALL_MLP = {"network.kind": "mlp", "network.depth": 2, "data.resolution": 4}
CONSTANT = {"trainer.decay": 0.0, "trainer.ema_decay": 0.99}

# Sizes are to bracket the crossings of .9 and .5. Seen before they were chosen: N: R_mem of a trial
# (seed 5000; the measurement was coarser), and for the U-Nets what other seeds had given.
_TO_CHOOSE_BY = {
    # 20: .91 to .93; 26: .21 to .68
    "demo-width4": Row(
        (8, 11, 14, 16, 18, 20, 23, 26, 30, 36), {"network.width": 4}, recipe=DIGITS
    ),
    # 30: .98; 38: .90
    "demo-width8": Row((12, 18, 24, 28, 32, 36, 40, 46, 54, 66), WIDTH_8, recipe=DIGITS),
    # 12: .97; 40: .05; the mean of other seeds crosses .9 at about 15
    "digits-width4": Row((5, 7, 9, 11, 13, 16, 20, 25, 32, 42), {"network.width": 4}),
    # 8: .94; 24: .98; 64: .09; the mean of other seeds crosses .9 at about 26
    "digits-width8": Row((8, 12, 16, 20, 24, 28, 32, 38, 48, 64), WIDTH_8),
    # 12: .90
    "digits-constant": Row(
        (4, 6, 8, 10, 12, 15, 19, 25, 34, 48),
        SMALL_MLP | CONSTANT | {"network.width": 128, "trainer.length": 1500, "trainer.lr": 3e-3},
    ),
    # 9: .94; 24: .60
    "digits-mlp": Row(
        (4, 6, 8, 10, 12, 15, 19, 25, 34, 48),
        SMALL_MLP | {"network.width": 128, "trainer.length": 1200, "trainer.lr": 3e-3},
    ),
    # The paper's regime. 3000 epochs gave 5: .79 with this batch and rate, and 8: .78; 20: .63 with
    # 32 and 5e-3, all still rising at the end: hence more epochs, on sizes that they can afford.
    "digits-epochs": Row(
        (5, 6, 8, 10, 12, 15, 18, 22, 27, 33),
        SMALL_MLP
        | CONSTANT
        | {"network.width": 64, "trainer.clock": "epochs", "trainer.length": 5000}
        | {"trainer.warmup": 50, "trainer.batch": 16, "trainer.lr": 8e-3},
    ),
    # 6: .93; with the demo's law of noise, at lr 1e-3, 6: .00
    "mnist14": Row(
        (4, 6, 8, 10, 13, 16, 20, 26, 34, 48),
        {"data.kind": "mnist5k", "data.resolution": 14, "network.kind": "mlp"}
        | {"network.width": 256, "network.depth": 2, "trainer.length": 1500, "trainer.lr": 2e-3}
        | {"diffusion.P_mean": -0.7, "diffusion.P_std": 0.7},
    ),
    "digits-width8-crossed": Row((24, 32), WIDTH_8, crossed=6),
}
_LATER = range(FIRST_SEED + ALL_SEEDS, FIRST_SEED + ALL_SEEDS + SEEDS)
_HELD_OUT = {  # of two noisy ones
    f"{name}-held-out": replace(_TO_CHOOSE_BY[name], seeds=_LATER)
    for name in ("demo-width4", "mnist14")
}
TABLE = _TO_CHOOSE_BY | _HELD_OUT
HELD_OUT = list(_HELD_OUT)
NAMES = [name for name, row in _TO_CHOOSE_BY.items() if not row.crossed]


@dataclass(frozen=True, order=True)
class Job:
    """One trial of the bank."""

    name: str
    n: int
    subset_seed: int
    seed: int

    def train(self, deadline: float) -> dict[str, Any] | None:
        """What is kept of the trial; None if before its end the time is up or the parent killed."""
        import torch  # here, because the parent has no need of it

        from trainables.storage import Storage
        from trainables.training.build import build_trainer
        from trainables.trial.trial import Trial

        torch.set_num_threads(1)
        parent = multiprocessing.parent_process()
        assert parent is not None
        configuration, cpu = TABLE[self.name].configuration, time.process_time()
        who = {"name": self.name, "n": self.n, "seed": self.subset_seed}
        spec = TrialSpec(configuration=configuration, measurement=MEASUREMENT, **who)

        def build(configuration, images, labels, seed, device):  # type: ignore[no-untyped-def]
            """A trainer with a seed of its own on the images of `subset_seed`."""
            return build_trainer(configuration, images, labels, self.seed, device)

        with tempfile.TemporaryDirectory() as directory:
            storage, device = Storage(directory), torch.device("cpu")
            trial = Trial(spec, data_of(self.name), storage, device, build=build)
            while trial.result is None:
                if time.time() > deadline or not parent.is_alive():
                    return None
                with suppress(TrialFailed):  # it is in the result, and is kept
                    trial.step()
        return self.kept(trial.result) | {"cpu_seconds": rounded(time.process_time() - cpu)}

    def kept(self, result: Result) -> dict[str, Any]:
        numbers = result.model_dump(exclude=LEFT_OUT, exclude_none=True)
        curve = {name: [rounded(getattr(one, name)) for one in result.curve] for name in CURVE}
        who = {"n": self.n, "subset_seed": self.subset_seed, "seed": self.seed}
        return who | {name: rounded(value) for name, value in numbers.items()} | {"curve": curve}


def rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


@functools.cache
def data_of(name: str) -> Any:
    from trainables.data.sources import load

    return load(TABLE[name].configuration.data)


def jobs() -> Iterator[Job]:
    """All trials, in the order in which they are trained."""
    yield from of_seeds(range(SEEDS))
    for name, row in TABLE.items():
        seeds = row.seeds[: row.crossed]
        yield from (Job(name, n, one, seed) for one in seeds for seed in seeds for n in row.sizes)
    yield from of_seeds(range(SEEDS, ALL_SEEDS))


def of_seeds(which: range) -> Iterator[Job]:
    rows = {name: TABLE[name] for name in [*NAMES, *HELD_OUT]}
    for i in which:
        for position in range(max(len(row.sizes) for row in rows.values())):
            for name, row in rows.items():
                if position < len(row.sizes) and i < len(row.seeds):
                    yield Job(name, row.sizes[position], row.seeds[i], row.seeds[i])


class BankFile:
    """The trials of one configuration; its file is replaced at once, so never half there."""

    def __init__(self, name: str) -> None:
        self.name, self.path, self.trials = name, BANK / f"{name}.json", dict[Job, dict[str, Any]]()
        self.recipe: dict[str, BaseModel] = {
            "configuration": TABLE[name].configuration,
            "measurement": MEASUREMENT,
        }
        self.versions = {package: [version(package)] for package in PACKAGES}
        if self.path.exists():
            content = json.loads(self.path.read_text())
            for trial in content.pop("trials"):
                self.trials[Job(name, trial["n"], trial["subset_seed"], trial["seed"])] = trial
            for package, earlier in content.pop("versions").items():
                self.versions[package] = sorted({*self.versions[package], *earlier})
            # fields that came later have their defaults
            if any(
                type(own).model_validate(content[key]) != own for key, own in self.recipe.items()
            ):
                raise SystemExit(f"{self.path}: of another recipe; move it away")

    def add(self, job: Job, trial: dict[str, Any]) -> None:
        self.trials[job] = trial
        lines = [json.dumps(self.trials[job], separators=(",", ":")) for job in sorted(self.trials)]
        head = {key: value.model_dump(mode="json") for key, value in self.recipe.items()}
        fields = head | {"versions": self.versions}
        lines_of_head = "".join(f"{json.dumps(key)}:{json.dumps(fields[key])},\n" for key in fields)
        part = self.path.with_suffix(".part")
        part.write_text("{" + lines_of_head + '"trials":[\n' + ",\n".join(lines) + "\n]}\n")
        part.replace(self.path)


def run(job: Job, deadline: float) -> tuple[Job, dict[str, Any] | None]:
    return job, job.train(deadline) if time.time() < deadline else None


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--minutes", type=float, default=1e6, help="what then runs is lost")
    parser.add_argument("--only", metavar="NAME", choices=list(TABLE), help="this one alone")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    deadline = time.time() + 60 * args.minutes
    os.nice(19)
    BANK.mkdir(exist_ok=True)
    lock = os.open(BANK, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would write over each other
    files = {name: BankFile(name) for name in TABLE if args.only in (None, name)}
    due = [job for job in jobs() if job.name in files and job not in files[job.name].trials]
    with multiprocessing.get_context("spawn").Pool(args.processes) as processes:
        within = functools.partial(run, deadline=deadline)
        for job, trial in processes.imap_unordered(within, due):
            if trial is not None:
                files[job.name].add(job, trial)
                what = f"R_mem {trial['r_mem']:.3f}" if trial["complete"] else trial["cause"]
                who = f"N {job.n:3}  subset {job.subset_seed}  seed {job.seed}"
                took = f"{trial['cpu_seconds']:.0f} of {trial['seconds']:.0f} s"
                print(f"{job.name:22} {who}  {what}  {took}", flush=True)


if __name__ == "__main__":
    main()
