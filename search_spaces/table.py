"""The search spaces that `emm` knows by name: one row a question."""

from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT, PAPER, PAPER_MEASUREMENT
from search_spaces.space import Search, SearchSpace
from trainables.errors import UserError

_ROWS = [
    SearchSpace(
        name="digits-width",
        question="Does a wider network memorize more training images?",
        source="the question of Gu et al. 2023 (arXiv 2310.02664), section 4, on scikit-learn's digits",
        expectation="EMM grows with the width",
        cost="minutes on 2 CPU cores",
        base=DIGITS,
        vary={"network.width": (4, 8)},
        search=Search(n_low=8, n_high=256, precision=0.15, max_trials=16),
        measurement=DIGITS_MEASUREMENT,
    ),
    SearchSpace(
        name="digits",
        question="How many digits does one configuration memorize? The space for a network or trainer of your own",
        source="docs/custom.md",
        expectation="depends on what is put into it",
        cost="minutes on 2 CPU cores",
        base=DIGITS,
        vary={},
        search=Search(n_low=8, n_high=256, precision=0.15, max_trials=16),
        measurement=DIGITS_MEASUREMENT,
    ),
    SearchSpace(
        name="cifar10-width",
        question="Does a wider network memorize more training images?",
        source="Gu et al. 2023 (arXiv 2310.02664), section 4: width 128–320",
        expectation="EMM about 1.06k at width 128 and about 5k at width 320",
        cost="GPU weeks",
        base=PAPER,
        vary={"network.width": (128, 192, 256, 320)},
        search=Search(n_low=250, n_high=16_000),
        measurement=PAPER_MEASUREMENT,
    ),
    SearchSpace(
        name="cifar10-depth",
        question="Does a deeper network memorize more training images?",
        source="Gu et al. 2023 (arXiv 2310.02664), section 4: 2–12 residual blocks per resolution at width 128",
        expectation="EMM is not monotone in the depth",
        cost="GPU weeks",
        base=PAPER,
        vary={"network.depth": (2, 4, 6, 8, 10, 12)},
        search=Search(n_low=250, n_high=16_000),
        measurement=PAPER_MEASUREMENT,
    ),
]
SPACES: dict[str, SearchSpace] = {row.name: row for row in _ROWS}


def find_space(name: str) -> SearchSpace:
    """The space of that name; UserError lists those there are."""
    if name not in SPACES:
        raise UserError(f"no search space {name!r}; there are {', '.join(SPACES)}")
    return SPACES[name]
