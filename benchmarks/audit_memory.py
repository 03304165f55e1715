"""Peak memory of `emm audit` against the size of the training set: it must not grow with it.

    python benchmarks/audit_memory.py [--sizes 10000 40000 160000] [--png] [--generated 500]

Writes random 32×32 colour images (an .npy file, or a folder of PNG files with --png) into a
temporary directory, of which every tenth generated image is a copy, and audits them in a process of
its own. Memory is the process's own: mapped pages of the .npy file, which the system takes back
when it needs them, are not counted.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image


def write(directory: Path, n: int, n_generated: int, png: bool) -> Path:
    rng = np.random.default_rng(0)
    training = np.lib.format.open_memmap(directory / "train.npy", "w+", np.uint8, (n, 32, 32, 3))
    for start in range(0, n, 10_000):
        training[start : start + 10_000] = rng.integers(
            0, 256, training[start : start + 10_000].shape, dtype=np.uint8
        )
    generated = rng.integers(0, 256, (n_generated, 32, 32, 3), dtype=np.uint8)
    generated[::10] = training[np.linspace(0, n - 1, len(generated[::10])).astype(int)]
    np.save(directory / "generated.npy", generated)
    if not png:
        return directory / "train.npy"
    for i, image in enumerate(training):
        (directory / "train" / f"{i // 1000}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(
            directory / "train" / f"{i // 1000}" / f"{i}.png", compress_level=1
        )
    return directory / "train"


def measure(training: Path, generated: Path) -> None:
    """In a process of its own: prints copies, seconds and memory in MB, before and at the peak."""
    from sweep.audit.compare import audit
    from sweep.audit.image_sets import open_set

    process, peak, done = psutil.Process(), [0], threading.Event()

    def own() -> int:
        memory = process.memory_info()
        return int(memory.rss - memory.shared)

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], own())

    before, begin = own(), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    found = audit(
        open_set("--train", training, least=2), open_set("--generated", generated), None, 1 / 3
    )
    done.set()
    watcher.join()
    copies, seconds = found.measures["n_memorized"], time.perf_counter() - begin
    print(f"{copies:>7} {seconds:>8.0f} {before / 1e6:>10.0f} {peak[0] / 1e6:>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000, 160_000])
    parser.add_argument("--png", action="store_true")
    parser.add_argument("--generated", type=int, default=500)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(*given.measure)
    print(
        f"{'images':>8} {'pixels MB':>10} {'copies':>7} {'seconds':>8} {'MB before':>10} {'MB at peak':>10}"
    )
    for n in given.sizes:
        with tempfile.TemporaryDirectory() as directory:
            training = write(Path(directory), n, given.generated, given.png)
            print(f"{n:>8} {n * 3072 / 1e6:>10.0f}", end=" ", flush=True)
            command = [
                sys.executable,
                __file__,
                "--measure",
                str(training),
                f"{directory}/generated.npy",
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
