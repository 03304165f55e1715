"""All distances of a trial, taken once; and the controls that they are compared with."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.identity import derive_seed
from trainables.diffusion.sampling import draw_latents
from trainables.measure.kept import Distances
from trainables.measure.neighbours import Comparison
from trainables.measure.r_mem import Floats, Ints, Neighbours

# images at most whose denoising errors are compared, and noise levels (pixels in [−1, 1]): at a
# snapshot, and of the weights that are measured
N_LOSS, LOSS_SIGMA = 256, 0.2
FINAL_SIGMAS = (0.1, 0.2, 0.4)

# training images at most whose nearest other one is looked for: a median needs no more
N_SPACING = 2000

# images among which one made again is looked for: a fixed number, since the more there are, the
# nearer is one
N_OTHERS = 500

N_COPIES = 1000  # noisy copies of training images: R_mem of .9 is then known to .01
COPIES_AT_ONCE = 50  # so that large images fit into memory

# steps to the noise of a copy, and the factor by which clipping may raise it
BISECTIONS, MOST_NOISE = 20, 2**12


PLAIN = Comparison()


def take_distances(
    found: Neighbours,
    samples: Tensor,
    held_out: Tensor,
    training: Tensor,
    comparison: Comparison = PLAIN,
    groups: Ints | None = None,
    seeds: Sequence[int] = (),
    n_others: int = N_OTHERS,
    pool: Tensor | None = None,
) -> Distances:
    """The distances that go with those already `found` for `samples`: [n, C, R, R] uint8, as the
    other images are.

    comparison, groups: as `found` was made with, see `nearest_two`; seeds: of the noisy copies, one
    of each; n_others: images among which one made again is looked for; pool: held-out images, as
    many as training images, for a generated image to be nearer to.
    """

    def repeats(images: Tensor) -> Floats | None:
        """[n], distance to the nearest other one of the first; None if there are not so many."""
        if len(images) < n_others:
            return None
        is_among = np.arange(len(images)) < n_others
        return nearest_other(images, images[:n_others], is_among, comparison)

    copies = None
    if len(seeds):
        noisy = noisy_copies(training, float(np.median(found.d1)), seeds)
        copies = comparison.nearest(noisy, training, groups)
    is_mirrored = comparison.flips
    other_rule = replace(comparison, flips=not is_mirrored).nearest(samples, training, groups)
    null = comparison.nearest(held_out, training, groups) if len(held_out) else None
    # of these training images to the nearest other one; the nearest is an image itself, or its double
    nearest = [found.i1] if null is None else [found.i1, null.i1]
    asked = np.unique(np.concatenate([np.arange(len(training))[:N_SPACING], *nearest]))
    spacing = np.full(len(training), np.nan)
    spacing[asked] = comparison.nearest(training[torch.from_numpy(asked)], training, groups).d2
    return Distances(
        found,
        null=null,
        repeats=repeats(samples),
        spacing=spacing[:N_SPACING],
        groups=groups,
        null_repeats=repeats(held_out),
        copies=copies,
        without_flips=other_rule if is_mirrored else None,
        with_flips=None if is_mirrored else other_rule,
        to_held_out=None if pool is None else comparison.nearest(samples, pool).d1,
        source_spacing=spacing[found.i1],
        null_source_spacing=None if null is None else spacing[null.i1],
        around=comparison.around(samples, training, groups),
        null_around=None if null is None else comparison.around(held_out, training, groups),
    )


def nearest_other(
    images: Tensor, others: Tensor, is_among: NDArray[np.bool_], comparison: Comparison
) -> Floats:
    """[n], distance of each of `images` to the nearest of `others` that is not itself; both [any,
    C, R, R] uint8.

    is_among: [n], whether the image is one of `others`. Two others or more.
    """
    found = comparison.nearest(images, others)
    return np.where(is_among, found.d2, found.d1)  # the first is itself, or its double


def noisy_copies(images: Tensor, distance: float, seeds: Sequence[int]) -> Tensor:
    """For each seed a copy of one of `images`, moved in a random direction: [len(seeds), C, R, R]
    uint8.

    images [N, C, R, R] uint8. The image is drawn uniformly and the direction is Gaussian, both by
    the seed. Its length is such that the copy, rounded and clipped to 0 … 255, is `distance` from
    its image (L2), or as near under it as whole pixel values come; where even black and white
    pixels are not so far, it is as far as they are.
    """
    starts = range(0, len(seeds), COPIES_AT_ONCE)
    copies = [_moved(images, distance, seeds[start : start + COPIES_AT_ONCE]) for start in starts]
    return torch.cat(copies)


def _moved(images: Tensor, distance: float, seeds: Sequence[int]) -> Tensor:
    """Bisects the logarithm of the noise: every pixel, and so the distance, moves one way only as
    it grows."""
    chosen = [derive_seed("copied image", seed) % len(images) for seed in seeds]
    sources = images[chosen].flatten(1).double()
    noise = draw_latents(seeds, images.shape[1:], torch.device("cpu")).flatten(1)
    low = distance / noise.norm(dim=1, keepdim=True) / 2  # rounding at most doubles a distance
    high = low * MOST_NOISE
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        copies = (sources + middle * noise).round().clip(0, 255)
        is_too_far = (copies - sources).norm(dim=1, keepdim=True) > distance
        low, high = torch.where(is_too_far, low, middle), torch.where(is_too_far, middle, high)
    moved: Tensor = (sources + low * noise).round().clip(0, 255).to(torch.uint8)
    return moved.reshape(-1, *images.shape[1:])


def denoising_errors(
    errors: Callable[[Tensor, float, Tensor | None], Floats],
    images: tuple[Tensor, Tensor | None],
    sigmas: Sequence[float],
) -> Floats:
    """[levels, any], of the first N_LOSS images in units of the noise variance: `errors(images, σ,
    labels)` / σ² at each noise level.

    images: [n, C, R, R] uint8 and their labels [n], or None. The same noise is laid on the images
    of two sets, position by position.
    """
    pixels, labels = images[0][:N_LOSS], None if images[1] is None else images[1][:N_LOSS]
    return np.stack([errors(pixels, sigma, labels) / sigma**2 for sigma in sigmas])
