"""Another eye than pixels: features that a function of the user's gives images, and the nearest
training images among them. docs/features.md shows such functions."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config.code import in_a_line, load_code
from trainables.config.measurement import Measurement
from trainables.errors import UserError
from trainables.measure.feature_rule import InFeatures
from trainables.measure.r_mem import Ints, Neighbours

AT_ONCE = 64  # images that the function is given

# Features have length 1; by how much those of one image may differ from call to call: what rounding
# does, that of TF32 too, stays far below, and what dropout or BatchNorm does is far above.
TOLERANCE = 0.01
N_CHECKED = 8  # images of random pixels


@dataclass(frozen=True)
class FeatureSpace:
    """Features by `function(images, device, **options)`: of images [n, C, R, R] uint8 on the CPU it
    gives floats [n, D], whatever their length; rows of other images must not count.

    by_ratio: what the rule is to compare, see `InFeatures`; where: how the user named the function,
    for messages. Whatever it does wrong raises UserError.
    """

    function: Callable[..., Any]
    options: dict[str, Any]
    device: torch.device
    by_ratio: bool
    where: str

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """[n, C, R, R] uint8 → [n, D] float64 of length 1, on the device."""
        return torch.cat([self._of_some(part) for part in torch.split(images, AT_ONCE)])

    def _of_some(self, images: Tensor) -> Tensor:
        call = f"called with images {list(images.shape)} it"
        try:
            # what it does to its images is not done to ours
            found: object = self.function(images.clone(), self.device, **self.options)
        except Exception as error:  # the user's function may raise whatever it likes
            raise UserError(f"{self.where}: {call} raised {in_a_line(error)}") from error
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim != 2:
            given = type(found).__name__
            if isinstance(found, Tensor):
                given = f"{found.dtype} {list(found.shape)}"
            raise UserError(f"{self.where}: {call} must return floats [n, D], not {given}")
        if len(found) != len(images):
            raise UserError(
                f"{self.where}: {call} must return a row for each, not {list(found.shape)}"
            )
        features: Tensor = found.to(self.device, torch.float64)
        length: Tensor = features.norm(dim=1, keepdim=True)
        if not bool(length.isfinite().all()):
            raise UserError(f"{self.where}: {call} returned values that are not finite")
        if not bool((length > 0).all()):
            raise UserError(f"{self.where}: {call} returned zeros alone, which have no direction")
        return features / length

    def passing(
        self, training: Iterable[Tensor], flips: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """The features of chunks of training images, [any, C, R, R] uint8, each with the position
        of its first image, and where flips count those of the mirrored ones (left and right)."""
        start = 0
        for chunk in training:
            for images in (chunk, chunk.flip(-1)) if flips else (chunk,):
                yield start, self.of(images)
            start += len(chunk)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless each image of that shape, [C, R, R], has features of its own: the
        same at each call, whatever other images are beside it, and not those of all others."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (N_CHECKED, *shape), dtype=torch.uint8, generator=generator)
        first, again = self.of(images), self.of(images)
        if _farthest(first, again) > TOLERANCE:
            raise UserError(
                f"{self.where}: it gave the same images other features when called again; leave out "
                "what is random in it (dropout: model.eval(); augmentation)"
            )
        others = [6, 1, 4]
        if _farthest(first[others], self.of(images[others])) > TOLERANCE:
            raise UserError(
                f"{self.where}: the features of an image depend on the images beside it; each row "
                "must depend on its own image alone (BatchNorm: model.eval())"
            )
        if _farthest(first, first[:1]) <= TOLERANCE:
            raise UserError(
                f"{self.where}: it gives {N_CHECKED} images of random pixels the same features; by "
                "their direction nothing can be told apart"
            )


class FeatureBank:
    """The training images of a trial in features, and what the rule says among them. Features are
    taken when they are first asked for.

    training [N, C, R, R] uint8; held_out [any, C, R, R] uint8: from these comes the threshold;
    groups, flips: as in `nearest_two`.
    """

    def __init__(
        self,
        space: FeatureSpace,
        training: Tensor,
        held_out: Tensor,
        groups: Ints | None = None,
        flips: bool = False,
    ) -> None:
        self.space, self.training, self.held_out = space, training, held_out
        self.groups, self.flips = groups, flips

    @cached_property
    def _features(self) -> list[tuple[int, Tensor]]:
        return list(self.space.passing(torch.split(self.training, AT_ONCE), self.flips))

    @cached_property
    def null(self) -> Neighbours:
        return self._nearest(self.held_out)

    def _nearest(self, images: Tensor) -> Neighbours:
        if not len(images):
            distances, positions = np.zeros(0), np.zeros(0, np.int64)
            return Neighbours(distances, distances, positions, positions)
        return nearest_in_features(self.space.of(images), self._features, self.groups)

    def look_at(self, images: Tensor) -> InFeatures:
        """[n, C, R, R] uint8."""
        return InFeatures(self._nearest(images), self.null, self.space.by_ratio)


def nearest_in_features(
    features: Tensor, training: Iterable[tuple[int, Tensor]], groups: Ints | None = None
) -> Neighbours:
    """The two nearest training images; of fewer, or of one group, d2 is infinite.

    features [n, D], as `FeatureSpace.of` gives them; training: as `passing` gives theirs; groups:
    as in `nearest_two`.
    """
    two, device = (len(features), 2), features.device
    best = torch.full(two, torch.inf, dtype=torch.float64, device=device)
    where, group = (torch.full(two, -1, device=device) for _ in range(2))
    for start, others in training:
        # double precision: a square of 1e-16 is a distance of 1e-8
        squares = (2 - 2 * features @ others.T).clamp(min=0)
        index = torch.arange(start, start + len(others), device=device)
        names = index  # an image and its mirror image are one
        if groups is not None:
            names = torch.from_numpy(groups[start : start + len(others)]).to(device)
        values = torch.cat([best, squares], 1)
        at = torch.cat([where, index.expand(squares.shape)], 1)
        of = torch.cat([group, names.expand(squares.shape)], 1)
        best, order = _two_of_two_groups(values, of)
        where, group = at.gather(1, order), of.gather(1, order)
    distances, positions = best.sqrt().cpu().numpy(), where.cpu().numpy()
    return Neighbours(distances[:, 0], distances[:, 1], positions[:, 0], positions[:, 1])


def _two_of_two_groups(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The least of each row, and the least of another group: values and positions, [n, 2] each.

    values [n, c] float, groups [n, c].
    """
    first, at = values.min(1, keepdim=True)
    others = values.masked_fill(groups == groups.gather(1, at), torch.inf)
    second, at_second = others.min(1, keepdim=True)
    return torch.cat([first, second], 1), torch.cat([at, at_second], 1)


def _farthest(a: Tensor, b: Tensor) -> float:
    """The largest distance between rows."""
    return float((a - b).norm(dim=1).max())


def open_features(
    how: Measurement,
    shape: tuple[int, ...],
    device: torch.device,
    option: str = "measurement.features",
) -> FeatureSpace | None:
    """The one that a measurement names, checked with images of that shape, [C, R, R]; None without.

    option: how it is called where the user named it. Raises UserError, in one line, for what is
    missing or can't be used.
    """
    if how.features is None:
        return None
    function = load_code(how.features, option)
    by_ratio, where = how.features_rule == "ratio", f"{option}={how.features}"
    space = FeatureSpace(function, how.features_options, device, by_ratio, where)
    space.check(shape)
    return space
