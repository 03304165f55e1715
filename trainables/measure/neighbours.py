"""Exact nearest neighbours among the training images.

Everything is computed on uint8 pixels, so a copy is at distance exactly 0; of exact duplicates in
the training set neither can be told to be *the* source, so their copies never count (d1 = d2).

Pixels are integers, and so is ‖x − y‖² = ‖x‖² − 2⟨x, y⟩ + ‖y‖². With pixels moved to −128 … 127,
⟨x, y⟩ is a product of int8 matrices, for which processors have units of their own; where they have
none, products of float32 are as exact while every sum is below 2²⁴.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from trainables.config.trial import TrialSpec
from trainables.measure.r_mem import Floats, Ints, Neighbours

Product = Callable[[Tensor, Tensor], Tensor]  # int8 [b, p], int8 [c, p] → int32 [b, c]

BLOCK = 2048  # samples that are compared at once
N_NEAREST = 50  # training images that a calibrated distance is measured by
MOST = 2**14  # of the product of two pixels, in magnitude
IN_INT32 = (2**31 - 1) // MOST  # pixels whose products may be summed in an int32 …
IN_FLOAT32 = 2**24 // MOST  # … and in a float32
SQUARES_IN_INT32 = (2**31 - 1) // (3 * MOST)  # pixels for which ‖y‖² − 2⟨x, y⟩ is an int32
FAR = 2**62  # the square of a distance that is not known yet


@dataclass(frozen=True)
class Comparison:
    """How alike images are: exactly, by L2 of their pixels.

    Whatever measures a trial compares images through this alone. flips: a mirrored copy (left and
    right) is a copy.
    """

    device: torch.device | None = None
    flips: bool = False

    def nearest(self, samples: Tensor, training: Tensor, groups: Ints | None = None) -> Neighbours:
        """See `nearest_two`."""
        return nearest_two(samples, training, self.device, groups, self.flips)

    def around(self, samples: Tensor, training: Tensor, groups: Ints | None = None) -> Floats:
        """See `around_of`."""
        chunks = torch.split(training, chunk_size(training[0].numel()))
        return around_of(samples, chunks, self.device, groups, self.flips)


def comparison_of(spec: TrialSpec, device: torch.device) -> Comparison:
    """The one of a trial: a mirrored copy is a copy of what was trained on."""
    return Comparison(device, flips=spec.configuration.trainer.augment == "flip")


def nearest_two(
    samples: Tensor,
    training: Tensor,
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
    product: Product | None = None,
) -> Neighbours:
    """Exact nearest and second nearest training image of each sample, by L2; among equal distances
    any one.

    samples [n, C, R, R] uint8, training [N >= 2, C, R, R] uint8. Needs about `max_bytes` of memory,
    whatever n and N are. groups [N] int64, two or more different ones: the second is then the
    nearest image of another group than the first's. flips: the distance to a training image is that
    to it or to its mirror image (left and right), whichever is less. product: see `nearest_two_of`.
    """
    assert len(training) >= 2, "a second nearest training image is needed"
    chunks = torch.split(training, chunk_size(training[0].numel(), max_bytes))
    return nearest_two_of(samples, chunks, device, groups, flips, max_bytes, product)


def nearest_two_of(
    samples: Tensor,
    chunks: Iterable[Tensor],
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
    product: Product | None = None,
) -> Neighbours:
    """`nearest_two` in a training set that comes in chunks, [any, C, R, R] uint8 each: it need not
    fit into memory.

    product: how ⟨x, y⟩ is computed; by default the faster one of those that are exact.
    """
    blocks = [_Nearest(block, device, flips, product) for block in _blocks(samples, max_bytes)]
    _show(blocks, chunks, device, groups)
    return Neighbours.joined([block.found() for block in blocks])


def around_of(
    samples: Tensor,
    chunks: Iterable[Tensor],
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
    n_nearest: int = N_NEAREST,
) -> Floats:
    """[n], mean L2 distance of each sample to its `n_nearest` nearest training images, to all if
    there are fewer: how near images are where it lies.

    Arguments as of `nearest_two_of`; with groups, only the nearest image of each counts.
    """
    blocks = [_Around(block, device, flips, n_nearest) for block in _blocks(samples, max_bytes)]
    _show(blocks, chunks, device, groups)
    return np.concatenate([block.found() for block in blocks])


def _blocks(samples: Tensor, max_bytes: int) -> tuple[Tensor, ...]:
    assert samples.dtype == torch.uint8, "distances are defined on uint8 pixels"
    return torch.split(samples, min(chunk_size(samples[0].numel(), max_bytes), BLOCK))


def _show(
    blocks: "Sequence[_Block]",
    chunks: Iterable[Tensor],
    device: torch.device | None,
    groups: Ints | None,
) -> None:
    """All training images to all blocks."""
    names, start = None if groups is None else torch.from_numpy(groups), 0
    for chunk in chunks:
        assert chunk.dtype == torch.uint8, "distances are defined on uint8 pixels"
        y = _centred(chunk.to(device))
        square = _square(y)
        index = torch.arange(start, start + len(y), device=device)
        group = None if names is None else names[start : start + len(y)].to(device)
        for block in blocks:
            block.look_at(y, square, index, group)
        start += len(y)


def chunk_size(pixels: int, max_bytes: int = 2**28) -> int:
    """How many training images fit into `max_bytes`: their pixels, and what BLOCK samples need of
    each."""
    return max(2, int(max_bytes / (8 * pixels + 12 * BLOCK)))


def _centred(images: Tensor) -> Tensor:
    """[n, …] uint8, 0 … 255 → [n, pixels] int8, −128 … 127: the highest bit turned, nothing else."""
    return (images ^ 128).view(torch.int8).flatten(1)


def _square(images: Tensor) -> Tensor:
    """‖y‖²: [n, pixels] int8 → [n] int64."""
    return images.to(torch.int32).square_().sum(1)


class _Block:
    """What a block of samples keeps of the training images that it has been shown so far: the
    `n_nearest` nearest of them."""

    def __init__(
        self,
        samples: Tensor,
        device: torch.device | None,
        flips: bool,
        n_nearest: int,
        product: Product | None = None,
    ) -> None:
        self.product = product or fastest_product(device or torch.device("cpu"))
        self.views = [_centred(samples.to(device))]
        if flips:  # ‖x − mirrored y‖ = ‖mirrored x − y‖
            self.views.append(_centred(samples.flip(-1).to(device)))
        shape = len(samples), n_nearest
        self.best = torch.full(shape, FAR, device=device)  # ‖y‖² − 2⟨x, y⟩, int64
        self.group = torch.full(shape, -1, device=device)

    def look_at(self, y: Tensor, square: Tensor, index: Tensor, group: Tensor | None) -> None:
        """y [c, pixels] int8 with their squares and positions [c] int64, and their groups [c] int64
        if the nearest are to be of different ones."""
        raise NotImplementedError

    def _squares(self, y: Tensor, square: Tensor) -> Tensor:
        """‖y‖² − 2⟨x, y⟩ of all pairs: [b, c] int32, or int64 where it would not fit."""
        products = _products(self.product, self.views[0], y)
        for view in self.views[1:]:
            products = torch.maximum(products, _products(self.product, view, y))
        kind = torch.int32 if y.shape[1] <= SQUARES_IN_INT32 else torch.int64
        products = products.to(kind)
        return torch.sub(square.to(kind), products, alpha=2, out=products)

    def _distances(self) -> Floats:
        """Of `best`: [b, n_nearest], infinite where there are fewer."""
        squares = (_square(self.views[0])[:, None] + self.best).cpu().numpy()
        # numpy rounds roots correctly
        return np.where(squares < FAR // 2, np.sqrt(squares), np.inf)


class _Nearest(_Block):
    """The two nearest."""

    def __init__(
        self, samples: Tensor, device: torch.device | None, flips: bool, product: Product | None
    ) -> None:
        super().__init__(samples, device, flips, 2, product)
        self.where = torch.full_like(self.group, -1)

    def look_at(self, y: Tensor, square: Tensor, index: Tensor, group: Tensor | None) -> None:
        squares = self._squares(y, square)
        if group is None:
            values, at = squares.topk(min(2, len(y)), dim=1, largest=False)
        else:
            values, at = _two_of_two_groups(squares, group)
            groups = torch.cat([self.group, group[at]], 1)
        values = torch.cat([self.best, values.to(torch.int64)], 1)
        where = torch.cat([self.where, index[at]], 1)
        if group is None:
            self.best, order = values.topk(2, dim=1, largest=False)
        else:
            self.best, order = _two_of_two_groups(values, groups)
            self.group = groups.gather(1, order)
        self.where = where.gather(1, order)

    def found(self) -> Neighbours:
        distance, index = self._distances(), self.where.cpu().numpy()
        assert np.isfinite(distance).all(), (
            "a second nearest training image, of another group, is needed"
        )
        return Neighbours(distance[:, 0], distance[:, 1], index[:, 0], index[:, 1])


class _Around(_Block):
    """The n_nearest nearest, of which only the distances are asked for."""

    def look_at(self, y: Tensor, square: Tensor, index: Tensor, group: Tensor | None) -> None:
        most = self.best.shape[1]
        squares = self._squares(y, square)
        if group is not None:  # of each the nearest
            names, of = torch.unique(group, return_inverse=True)
            least = squares.new_full((len(squares), len(names)), torch.iinfo(squares.dtype).max)
            squares = least.scatter_reduce(1, of.expand(squares.shape), squares, "amin")
        values, at = squares.topk(min(most, squares.shape[1]), dim=1, largest=False)
        values = torch.cat([self.best, values.to(torch.int64)], 1)
        if group is not None:
            groups = torch.cat([self.group, names[at]], 1)
            values = values.masked_fill(_is_repeated(values, groups), FAR)
        self.best, order = values.topk(most, dim=1, largest=False)
        if group is not None:
            self.group = groups.gather(1, order)

    def found(self) -> Floats:
        distance = self._distances()
        known = distance[:, np.isfinite(distance).all(axis=0)]
        mean: Floats = np.ascontiguousarray(known).mean(axis=1)  # sums depend on no other row
        return mean


def _is_repeated(values: Tensor, groups: Tensor) -> Tensor:
    """[b, c] bool: whether another value of the same row and group, [b, c] each, is less; of equal
    ones, whether it stands before."""
    is_same = groups[:, :, None] == groups[:, None, :]
    a, b = values[:, :, None], values[:, None, :]
    is_before = torch.ones_like(is_same[0]).tril(-1)
    repeated: Tensor = (is_same & ((b < a) | ((b == a) & is_before))).any(2)
    return repeated


def _two_of_two_groups(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The least of each row, and the least of another group: values and positions, [b, 2] each.

    values [b, c]; groups [c], or [b, c]. Where there is no second, its value is FAR.
    """
    groups = groups.expand(values.shape)
    first, at = values.min(1, keepdim=True)
    none = min(FAR, torch.iinfo(values.dtype).max)  # more than any square
    others = values.masked_fill(groups == groups.gather(1, at), none)
    second, at_second = others.min(1, keepdim=True)
    second = torch.where(second == none, FAR, second.to(torch.int64))
    return torch.cat([first.to(torch.int64), second], 1), torch.cat([at, at_second], 1)


def _products(product: Product, x: Tensor, y: Tensor) -> Tensor:
    """⟨x, y⟩ of int8 [b, p] and [c, p]: [b, c] int32, or int64 where p is beyond an int32."""
    if x.shape[1] <= IN_INT32:
        return product(x, y)
    parts = zip(torch.split(x, IN_INT32, 1), torch.split(y, IN_INT32, 1), strict=True)
    total = torch.zeros((len(x), len(y)), dtype=torch.int64, device=x.device)
    for x_part, y_part in parts:
        total += product(x_part, y_part)
    return total


def integer_product(x: Tensor, y: Tensor) -> Tensor:
    """⟨x, y⟩ of int8 [b, p] and [c, p] → int32 [b, c], by units for int8: VNNI and AMX of CPUs,
    tensor cores.

    Those of CUDA want whole eights of rows and columns, and more than 16 rows; torch 2.14 on a CPU
    gives something else for a single column.
    """
    pixels = x.shape[1] + -x.shape[1] % 8
    if x.device.type != "cuda":
        return torch._int_mm(_padded(x, len(x), pixels), _padded(y, len(y), pixels).T)
    rows, columns = max(24, len(x) + -len(x) % 8), len(y) + -len(y) % 8
    product = torch._int_mm(_padded(x, rows, pixels), _padded(y, columns, pixels).T)
    return product[: len(x), : len(y)].contiguous()


def _padded(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """With zeros, to rows × columns."""
    if matrix.shape == (rows, columns):
        return matrix.contiguous()
    wide = matrix.new_zeros((rows, columns))
    wide[: len(matrix), : matrix.shape[1]] = matrix
    return wide


def float_product(x: Tensor, y: Tensor) -> Tensor:
    """The same by float32, so many pixels at a time that each sum is exact; TF32 and bf16 hold a pixel."""
    total = torch.zeros((len(x), len(y)), dtype=torch.int32, device=x.device)
    parts = zip(torch.split(x, IN_FLOAT32, 1), torch.split(y, IN_FLOAT32, 1), strict=True)
    for x_part, y_part in parts:
        total += (x_part.float() @ y_part.float().T).to(torch.int32)
    return total


@cache
def fastest_product(device: torch.device) -> Product:
    """`integer_product` where it is right and faster on `device`, else `float_product`."""
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randint(-128, 128, (rows, 2048), dtype=torch.int8, generator=generator).to(device)
        for rows in (509, 1021)
    )
    try:
        is_right = torch.equal(integer_product(x, y), float_product(x, y))
        seconds = [min(_seconds(product, x, y) for _ in range(3)) for product in PRODUCTS]
    except (RuntimeError, NotImplementedError):  # a device without such a product
        return float_product
    return PRODUCTS[seconds.index(min(seconds))] if is_right else float_product


PRODUCTS = (integer_product, float_product)


def _seconds(product: Product, x: Tensor, y: Tensor) -> float:
    begin = time.perf_counter()
    product(x, y)[0, 0].item()  # waits for the device
    return time.perf_counter() - begin
