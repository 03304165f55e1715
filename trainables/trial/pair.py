"""Two models of one configuration on disjoint images, drawn from the same latents: do they make the
same image?

After Kadkhodaie, Guth, Simoncelli and Mallat 2023 (arXiv 2310.02557) and Zhang et al. 2023 (arXiv
2310.05264): models that copy make different images of the same noise, models that generalize the
same ones, though no training image is common to both.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.identity import derive_seed
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.images import ImageData
from trainables.measure.neighbours import Comparison
from trainables.training.build import AnyTrainer, BuildTrainer
from trainables.training.team import Team
from trainables.trial.subset import Subset
from trainables.trial.training import Training


def second_training(
    spec: TrialSpec,
    data: ImageData,
    device: torch.device,
    slice_seconds: float,
    build: BuildTrainer,
    team: Team | None,
) -> Training:
    """Of the second model, on the N images that come after the first one's in the order of its seed.

    It has another initialization and other noise in training, so that what the two have in common
    is the data's law, and the latents. Raises as `Subset` and `Training` do.
    """

    def otherwise(
        configuration: Configuration,
        images: Tensor,
        labels: Tensor | None,
        seed: int,
        device: torch.device,
    ) -> AnyTrainer:
        return build(configuration, images, labels, derive_seed("second model", seed), device)

    subset = Subset(spec, data, device, team, second=True)
    subset.open_features()
    return Training(spec, subset, device, slice_seconds, otherwise)


def agreement(
    first: Tensor, second: Tensor, comparison: Comparison
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """The arrays that are kept of the images of both models, position by position from the same
    latents, and what a result says of them. Both [n, C, R, R] uint8, n ≥ 2.

    pair_agreement: share of the images whose nearest image by the other model is that of the same
    latent, the mean of both directions: 1 / n if latents say nothing. pair_distance: median
    distance of the two images of a latent over that of images of different latents (each and the
    next): 1 if latents say nothing, 0 if both models draw the same.
    """
    positions = np.arange(len(first))
    there = comparison.nearest(first, second).i1
    back = comparison.nearest(second, first).i1
    apart, unrelated = _apart(first, second), _apart(first, second.roll(-1, 0))
    typical = float(np.median(unrelated))
    numbers = {
        "pair_agreement": float((there == positions).mean() + (back == positions).mean()) / 2,
        "pair_distance": float(np.median(apart)) / typical if typical else 0.0,
    }
    return {"pair_nearest": there, "pair_nearest_back": back, "pair_apart": apart}, numbers


def _apart(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """[n], L2 distance of images at the same position, pixel values 0–255."""
    difference = first.flatten(1).double() - second.flatten(1).double()
    distances: NDArray[np.float64] = difference.norm(dim=1).numpy()
    return distances
