"""Where the seconds of a trial go, on the digits demo.

    python -m benchmarks.trial_seconds [--n 24] [--width 16] [--set trainer.precision=bf16]

One whole trial in a directory of its own. Parts are timed from outside, each without those inside it.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from trainables.config.fields import with_fields
from trainables.config.trial import TrialSpec
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.training.trainer import Trainer
from trainables.trial.checkpoint import Checkpoints
from trainables.trial.files import TrialFiles
from trainables.trial.subset import Subset
from trainables.trial.trial import Trial, choose_device

PARTS = {
    "training": (Trainer, "train_until"),
    "samples": (Trainer, "sample"),
    "denoising errors": (Trainer, "denoising_errors"),
    "neighbours of samples": (Subset, "nearest"),
    "null, noisy copies, spacing": (Subset, "distances"),
    "closed-form optimum": (Subset, "ceiling"),
    "checkpoints": (Checkpoints, "save"),
    "result and its files": (TrialFiles, "finish"),
}


class Clock:
    """Seconds by part; of parts inside one another each second counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.inner = [0.0]  # of what is running: seconds of parts inside it

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            self.inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                elapsed = time.perf_counter() - begin
                self.seconds[part] += elapsed - self.inner.pop()
                self.inner[-1] += elapsed

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    given = parser.parse_args()
    changes = {"network.width": given.width} | dict(text.split("=", 1) for text in given.set)
    spec = TrialSpec(
        name="profile",
        configuration=with_fields(DIGITS, changes),
        measurement=DIGITS_MEASUREMENT,
        n=given.n,
        seed=0,
    )
    clock, data = Clock(), load(DIGITS.data)
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    with tempfile.TemporaryDirectory() as directory:
        begin = time.perf_counter()
        trial = Trial(spec, data, Storage(directory), choose_device())
        while trial.result is None:
            trial.step()
        whole = time.perf_counter() - begin
    clock.seconds["all else"] = whole - clock.seconds.total()
    print(f"width {given.width}, N = {given.n}, R_mem {trial.result.r_mem:.3f}: {whole:.1f} s")
    print("| part | seconds | share |\n|---|---|---|")
    for part, seconds in clock.seconds.most_common():
        print(f"| {part} | {seconds:.2f} | {seconds / whole:.1%} |")


if __name__ == "__main__":
    main()
