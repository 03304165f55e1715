"""Noise that training images have for good, in place of new noise at every visit."""

import itertools
import math

import torch
from torch import Tensor

from trainables.config.diffusion import Law
from trainables.config.identity import derive_seed
from trainables.diffusion.sampling import draw_latents
from trainables.training.order import Order


class FixedNoise:
    """Each of N images has `draws` noise levels with a noise of its own, and takes them in turn: the
    m of George, Veiga and Macris (arXiv 2502.00336).

    A draw follows from (seed, image, its number) alone, so that none is stored. Where noise levels
    are stratified, those of an image are, one in each of `draws` equally likely bins. `shape`:
    [C, R, R] of an image; `device`: where the noise is wanted. A CPU core takes 0.1 ms for an image
    of 3×32×32, and 0.01 ms for one of 1×8×8; a GPU may meanwhile be at the last step.
    """

    def __init__(
        self,
        draws: int,
        law: Law,
        order: Order,
        seed: int,
        shape: tuple[int, ...],
        device: torch.device,
    ) -> None:
        """order: the training's, but on the CPU, where the noise is drawn: to read indices back
        from a GPU would wait for it."""
        self.draws, self.law, self.order, self.seed = draws, law, order, seed
        self.shape, self.device = shape, device
        golden = round(0.618034 * draws)
        self.stride = next(s for s in itertools.count(golden) if math.gcd(s, draws) == 1)

    def at(self, position: int, size: int) -> tuple[Tensor, Tensor]:
        """Of the next `size` images after `position` images: noise levels σ [size] and standard
        normal noise ε [size, C, R, R], float32."""
        images = self.order.indices(position, size)
        epochs = torch.arange(position, position + size) // self.order.n
        numbers = (epochs + images) % self.draws
        seeds = [
            derive_seed("fixed noise", self.seed, image, number)
            for image, number in zip(images.tolist(), numbers.tolist(), strict=True)
        ]
        drawn = draw_latents(seeds, (1 + math.prod(self.shape),), torch.device("cpu"))
        u = torch.special.ndtr(drawn[:, 0])  # of a normal number a uniform one
        if self.law.is_stratified:
            # numbers in a row, as those of a batch and of an image's visits are, lie in bins that
            # are evenly spread, as the multiples of the golden ratio are modulo 1
            u = (numbers * self.stride % self.draws + u) / self.draws
        sigma, epsilon = self.law.sigma(u), drawn[:, 1:].reshape(size, *self.shape)
        return self._float32(sigma), self._float32(epsilon)

    def _float32(self, drawn: Tensor) -> Tensor:
        return drawn.float().to(self.device, non_blocking=True)
