"""Another eye than pixels: features that a function of the user's gives images, and the nearest
training image among them. docs/features.md shows such functions."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.config.code import in_a_line, load_code
from trainables.config.measurement import Measurement
from trainables.errors import UserError
from trainables.measure.feature_rule import InFeatures
from trainables.measure.r_mem import Floats, Ints

AT_ONCE = 64  # images that the function is given

# Features have length 1; by how much those of one image may differ from call to call: what rounding
# does, that of TF32 too, stays far below, and what dropout or BatchNorm does is far above.
TOLERANCE = 0.01
N_CHECKED = 8  # images of random pixels


@dataclass(frozen=True)
class FeatureSpace:
    """Features by `function(images, device, **options)`: of images [n, C, R, R] uint8 on the CPU it
    gives floats [n, D], whatever their length; rows of other images must not count.

    where: how the user named it, for messages. Whatever the function does wrong raises UserError.
    """

    function: Callable[..., Any]
    options: dict[str, Any]
    device: torch.device
    where: str

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """[n, C, R, R] uint8 → [n, D] float32 of length 1, on the device."""
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
        features: Tensor = found.to(self.device, torch.float32)
        length: Tensor = features.norm(dim=1, keepdim=True)
        if not bool(length.isfinite().all()):
            raise UserError(f"{self.where}: {call} returned values that are not finite")
        if not bool((length > 0).all()):
            raise UserError(f"{self.where}: {call} returned zeros alone, which have no direction")
        return features / length

    def nearest(
        self, features: Tensor, training: Iterable[Tensor], flips: bool = False
    ) -> tuple[Floats, Ints]:
        """Distance to the nearest training image, and its position: [n] each.

        features [n, D], as `of` gives them; training: chunks [any, C, R, R] uint8, which need not
        fit into memory together; flips: a mirrored training image is one. The nearest is found by
        products, its distance taken from differences, so that rounding does not blur small ones.
        """
        best = torch.full((len(features),), -2.0, device=self.device)  # cosine
        at = torch.full((len(features),), -1, device=self.device)
        near = torch.empty_like(features)
        for start, images in _with_mirrored(training, flips):
            others = self.of(images)
            cosine, where = (features @ others.T).max(dim=1)
            is_nearer = cosine > best
            best = torch.where(is_nearer, cosine, best)
            at = torch.where(is_nearer, start + where, at)
            near[is_nearer] = others[where[is_nearer]]
        distance = (features - near).double().norm(dim=1)
        return distance.cpu().numpy(), at.cpu().numpy()

    def compare(
        self, samples: Tensor, held_out: Tensor, training: Tensor, flips: bool
    ) -> InFeatures:
        """All [any, C, R, R] uint8."""
        asked = self.of(torch.cat([samples, held_out]))
        d1, i1 = self.nearest(asked, torch.split(training, AT_ONCE), flips)
        n = len(samples)
        return InFeatures(d1[:n], i1[:n], d1[n:])

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


def _with_mirrored(chunks: Iterable[Tensor], flips: bool) -> Iterator[tuple[int, Tensor]]:
    """Each chunk with the position of its first image, and once more mirrored (left and right)."""
    start = 0
    for chunk in chunks:
        for images in (chunk, chunk.flip(-1)) if flips else (chunk,):
            yield start, images
        start += len(chunk)


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
    space = FeatureSpace(function, how.features_options, device, f"{option}={how.features}")
    space.check(shape)
    return space
