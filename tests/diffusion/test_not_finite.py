"""Images of numbers that are not finite are a failure, and no black ones."""

import math

import pytest
import torch

from trainables.config.measurement import Measurement
from trainables.diffusion.sampling import sample
from trainables.errors import TrialFailed

HOW = Measurement(n_samples=10, n_selection=10, sampler_steps=4, batch=4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_they_are_counted(value):
    """Of two of ten images one pixel, at the first noise level alone."""
    calls = []

    def denoise(x, sigma):
        calls.append(len(x))
        out = torch.zeros_like(x)
        if len(calls) in (1, 10):  # the first call of the first and of another batch
            out[1, 0, 0, 0] = value
        return out

    with pytest.raises(TrialFailed, match="2 of 10 generated images are not finite"):
        sample(denoise, range(10), (1, 2, 2), HOW, torch.device("cpu"))


def test_finite_ones_of_any_size_are_clipped():
    images = sample(lambda x, sigma: x * 0 + 1e30, range(3), (1, 2, 2), HOW, torch.device("cpu"))
    assert images.tolist() == [[[[255, 255], [255, 255]]]] * 3
