"""Sweeps that train nothing, for `benchmarks.door`: a search space whose trials sleep, files of a
sweep whose R_mem is a formula, and studies of a thousand finished trials.

    python -m benchmarks.made_up write DIR CONFIGURATIONS TRIALS | space | driver
"""

import math
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.door import TRIAL_SECONDS
from search_spaces.recipes import DIGITS
from search_spaces.space import Search, SearchSpace
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration

PER_STUDY = 6


class Sleeper:
    """A trainer (see trainables.training.custom.YourTrainer) that sleeps, and then copies a share
    of what it was given that falls with N."""

    def __init__(
        self,
        configuration: Configuration,
        images: Tensor,
        labels: Tensor | None,
        seed: int,
        device: torch.device,
        emm: int,
        seconds: float = TRIAL_SECONDS,
    ) -> None:
        self.images, self.progress, self.seconds = images, 0.0, seconds
        self.share = 1 / (1 + math.exp(4 * math.log(len(images) / emm) - math.log(9)))

    def train_until(self, progress: float) -> None:
        time.sleep((progress - self.progress) * self.seconds)
        self.progress = progress

    def sample(self, seeds: list[int], labels: Tensor | None) -> Tensor:
        drawn = [torch.Generator().manual_seed(seed % 2**32) for seed in seeds]
        copied = torch.stack([torch.rand(1, generator=one) < self.share for one in drawn])
        noise = [torch.rand(self.images.shape[1:], generator=one) * 255 for one in drawn]
        copies = self.images[torch.tensor(seeds) % len(self.images)]
        return torch.where(copied[..., None, None], copies, torch.stack(noise).to(torch.uint8))

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.progress = state["progress"]


SLEEPING = {
    "trainer.kind": "custom",
    "trainer.builder": "benchmarks.made_up:Sleeper",
    "trainer.clock": "steps",
    "trainer.length": 100,
    "trainer.batch": 64,
}

SPACE = SearchSpace(
    name="made-up",
    question="Are the slots busy?",
    source="a formula",
    expectation="they are",
    cost="minutes",
    base=with_fields(DIGITS, {**SLEEPING, "trainer.options": {"emm": 30}}),
    vary={
        "trainer.options": {f"emm-{n}": {"trainer.options": {"emm": n}} for n in (20, 30, 40, 60)}
    },
    search=Search(n_low=8, n_high=256, precision=0.01, max_trials=PER_STUDY),
    measurement=Measurement(n_samples=300, n_selection=100, snapshots=4),
)


def write(directory: str, configurations: str, trials: str) -> str:
    from tests.fakes import fake_space
    from tests.results import write_sweep
    from trainables.data.sources import load
    from trainables.storage import Storage

    widths = tuple(range(8, 8 + 4 * int(configurations), 4))
    how = Measurement(n_samples=200, n_selection=100)
    made = fake_space(widths, n_high=1500).model_copy(update={"measurement": how})
    write_sweep(Storage(directory), made, load(DIGITS.data), int(trials))
    return "written"


def space() -> str:
    from tests.fakes import fake_space

    made, seconds = fake_space(tuple(range(8, 408, 4))), []
    for _ in range(2):
        begin = time.perf_counter()
        assert len(made.configurations) == 100
        seconds.append(f"{1e3 * (time.perf_counter() - begin):.2f} ms")
    return ", ".join(seconds)


def driver() -> str:
    """Of 40 studies of 25 finished trials, in a database on disk."""
    from sweep.run.studies import Studies, Ticket
    from sweep.store.databases import sqlite_url
    from tests.fakes import fake_r_mem, fake_space
    from trainables.data.sources import load
    from trainables.trial.result import Result, start_record

    made = fake_space(tuple(range(8, 168, 4)), n_high=1700, precision=0.001, max_trials=1000)
    data, begin = load(DIGITS.data), time.perf_counter()

    def result(ticket: Ticket) -> Result:
        spec = studies.spec(ticket)
        n_memorized = round(fake_r_mem(spec) * 2000)
        fields = {"r_mem": n_memorized / 2000, "n_samples": 2000, "n_memorized": n_memorized}
        return Result.model_validate({**dict(start_record(spec, data)), "complete": True, **fields})

    with tempfile.TemporaryDirectory() as directory:
        studies = Studies(made, sqlite_url(Path(directory) / "optuna.db"))
        tickets = [
            Ticket(named.name, seed, round((16 + 8 * i) * math.exp((seed - 12) / 12)))
            for i, named in enumerate(made.configurations)
            for seed in range(25)
        ]
        studies.reconcile(map(result, tickets), [])
        opened, asked = time.perf_counter() - begin, []
        for named in made.configurations:
            studies.verdict(named.name)
            begin = time.perf_counter()
            ticket = studies.ask(named.name)
            asked.append(1e3 * (time.perf_counter() - begin))
            studies.tell(result(ticket))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    typical = statistics.median(asked)
    return f"{typical:.0f} ms (longest {max(asked):.0f}); {memory:.0f} MB; opened in {opened:.0f} s"


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    print({"write": write, "space": space, "driver": driver}[what](*arguments))
