"""Which images a step trains on: a sequence of epochs, each a permutation of the subset."""

import torch
from torch import Tensor

from trainables.config.identity import derive_seed


class Order:
    """Images number `position` … of the sequence, as indices into the subset [N] on `device`.

    is_reshuffled: every epoch has a permutation of its own; else one serves them all. Both follow
    from the seed.
    """

    def __init__(self, n: int, seed: int, is_reshuffled: bool, device: torch.device) -> None:
        self.n, self.seed, self.device = n, seed, device
        self.is_reshuffled = is_reshuffled
        # the epochs that are on the device, one after the other, and the number of the first
        self.first, self.epochs = 0, self._drawn(0, 1)

    def _drawn(self, first: int, last: int) -> Tensor:
        """Epochs `first` … `last` − 1: [(last − first) N] int64."""
        epochs = []
        for epoch in range(first, last):
            generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
            epochs.append(torch.randperm(self.n, generator=generator))
        return torch.cat(epochs).to(self.device, non_blocking=True)

    def indices(self, position: int, size: int) -> Tensor:
        """The next `size` after `position` images: [size] int64."""
        if not self.is_reshuffled:
            places = torch.arange(position, position + size, device=self.device) % self.n
            return self.epochs[places]
        first, last = position // self.n, (position + size - 1) // self.n + 1
        held = self.first + len(self.epochs) // self.n
        if first < self.first or last > held:
            self.first, self.epochs = first, self._drawn(first, last)
        start = position - self.first * self.n
        return self.epochs[start : start + size]
