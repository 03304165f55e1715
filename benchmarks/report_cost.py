"""Seconds of `emm report` and weight of its page, for sweeps of made-up results: `python -m
benchmarks.report_cost`.

The pictures are noise of 32×32×3 pixels, which is the worst that can be compressed.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from search_spaces.space import SearchSpace
from sweep.analysis.summary import summarize
from sweep.report.files import write_report
from sweep.report.gallery import Pictures
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.config.measurement import Measurement
from trainables.data.images import ImageData
from trainables.storage import Storage


def main() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1797, 3, 32, 32), dtype=np.uint8)
    data = ImageData.of(images, None, "digits")
    for count, trials in ((2, 8), (40, 12)):
        space: SearchSpace = fake_space(tuple(range(8, 8 + 4 * count, 4)), n_high=1500)
        space = space.model_copy(
            update={"measurement": Measurement(n_samples=200, n_selection=100)}
        )
        with tempfile.TemporaryDirectory() as directory:
            storage = Storage(directory)
            write_sweep(storage, space, data, trials)
            begin, cpu = time.perf_counter(), time.process_time()
            summary = summarize(storage)
            page = write_report(
                summary, Path(directory) / "report", Pictures(storage, "pairs", lambda name: data)
            )
            seconds, cpu, size = (
                time.perf_counter() - begin,
                time.process_time() - cpu,
                page.stat().st_size / 1e6,
            )
        print(
            f"{count} configurations × {trials} trials: {seconds:.1f} s (of a CPU {cpu:.1f} s), page {size:.1f} MB"
        )


if __name__ == "__main__":
    main()
