"""What all questions of the paper would cost, by this project's search and by the paper's grid.

    python -m benchmarks.whole_study [--tflops 279] [--gpus 64]

Hours are those of `emm plan`: a search costs what simulation says until it has found the EMM
(docs/search.md), taken to be the geometric middle of the range of N; the grid is one training at each
size that the paper shows, with one seed. All devices work all the time.
"""

import argparse

from search_spaces.table import SPACES
from sweep.run.plan import hours_of_sizes, plan

SIZES = (500, 1000, 2000, 3000, 4000, 5000, 8000, 16_000)  # Gu et al. 2023, figure 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, default=279.0, help="TFLOP/s of a GPU in a step")
    parser.add_argument("--gpus", type=int, default=64)
    given = parser.parse_args()
    print("| space | configurations | GPU hours by search | by grid | grid / search |")
    print("|---|---|---|---|---|")
    searched = on_grid = 0.0
    for name, space in SPACES.items():
        if not name.startswith("cifar10-"):
            continue
        rows = plan(space, given.tflops)
        search = sum(row.hours_search or 0 for row in rows)
        grid = sum(
            hours_of_sizes(named.configuration, space, SIZES, given.tflops)
            for named in space.configurations
        )
        searched, on_grid = searched + search, on_grid + grid
        print(f"| {name} | {len(rows)} | {search:,.0f} | {grid:,.0f} | {grid / search:.1f} |")
    print(f"| all | | {searched:,.0f} | {on_grid:,.0f} | {on_grid / searched:.1f} |")
    days = [hours / given.gpus / 24 for hours in (searched, on_grid)]
    print(
        f"\nat {given.tflops:g} TFLOP/s on {given.gpus} GPUs: {days[0]:,.1f} days, {days[1]:,.1f}"
    )


if __name__ == "__main__":
    main()
