"""The search for the two nearest training images against other ways to do it, in one run.

    python -m benchmarks.neighbours [--samples 2000] [--training 20000] [--side 32] [--device cpu]

All find the same distances, which is checked: of the float64 expansion, which this project used
before, bit for bit; of torch.cdist and FAISS (faiss-cpu, if it is installed) within single
precision. Seconds are the least of three rounds, in which the ways take turns.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainables.measure.neighbours import fastest_product, nearest_two

Found = np.ndarray  # [n, 2] distances


def ours(samples: Tensor, training: Tensor, device: torch.device) -> Found:
    found = nearest_two(samples, training, device)
    return np.stack([found.d1, found.d2], 1)


def with_float64(samples: Tensor, training: Tensor, device: torch.device) -> Found:
    """‖x‖² − 2⟨x, y⟩ + ‖y‖² in float64, which is exact, in blocks of 1,024 × 3,000."""
    found = []
    for block in torch.split(samples, 1024):
        x = block.flatten(1).to(device, torch.float64)
        best = torch.full((len(x), 2), torch.inf, dtype=torch.float64, device=device)
        for chunk in torch.split(training, 3000):
            y = chunk.flatten(1).to(device, torch.float64)
            squares = x.square().sum(1)[:, None] - 2 * x @ y.T + y.square().sum(1)[None, :]
            best = torch.cat([best, squares], 1).topk(2, dim=1, largest=False).values
        found.append(best.cpu())
    return np.sqrt(torch.cat(found).numpy())


def with_cdist(samples: Tensor, training: Tensor, device: torch.device) -> Found:
    x, y = (images.flatten(1).to(device, torch.float32) for images in (samples, training))
    found = torch.cdist(x, y).topk(2, dim=1, largest=False).values
    return found.cpu().numpy().astype(np.float64)


def with_faiss(samples: Tensor, training: Tensor, device: torch.device) -> Found:
    import faiss  # type: ignore[import-not-found]

    x, y = (images.flatten(1).float().numpy() for images in (samples, training))
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(y)
    return np.sqrt(index.search(x, 2)[0].astype(np.float64))


WAYS: dict[str, Callable[[Tensor, Tensor, torch.device], Found]] = {
    "ours": ours,
    "float64 expansion (before)": with_float64,
    "torch.cdist + topk, float32": with_cdist,
    "FAISS IndexFlatL2, float32": with_faiss,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--training", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=32, help="pixels a side, three channels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    device, generator = torch.device(given.device), torch.Generator().manual_seed(0)
    sizes = [
        (given.samples, 3, given.side, given.side),
        (given.training, 3, given.side, given.side),
    ]
    samples, training = (
        torch.randint(0, 256, size, dtype=torch.uint8, generator=generator) for size in sizes
    )
    product = fastest_product(device).__name__
    print(f"{given.samples:,} x {given.training:,} x {3 * given.side**2:,} on {device}, {product}")
    seconds: dict[str, list[float]] = {}
    found: dict[str, Found] = {}
    for _ in range(given.rounds):
        for name, way in WAYS.items():
            begin = time.perf_counter()
            try:
                found[name] = way(samples, training, device)
            except ModuleNotFoundError:
                continue
            seconds.setdefault(name, []).append(time.perf_counter() - begin)
    best = min(seconds["ours"])
    print("| way | seconds | against ours | largest difference of a distance |\n|---|---|---|---|")
    for name, of_way in seconds.items():
        difference = np.abs(found[name] - found["ours"]).max()
        print(f"| {name} | {min(of_way):.3f} | {min(of_way) / best:.1f} x | {difference:.2g} |")


if __name__ == "__main__":
    main()
