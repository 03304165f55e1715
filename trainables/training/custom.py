"""A trainer of the user's own: its contract, and the adapter through which a trial uses it like the
standard one.

docs/custom.md shows a complete one.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from trainables.config.code import in_a_line, load_code
from trainables.config.identity import derive_seed, identity, key_of
from trainables.config.measurement import Measurement
from trainables.config.network import CustomNetwork
from trainables.config.training import CustomTrainer
from trainables.config.trial import Configuration
from trainables.errors import TrialFailed, UserError
from trainables.networks.custom import build_custom

METHODS = ("train_until", "sample", "state_dict", "load_state_dict")


class YourTrainer(Protocol):
    """The contract of `trainer.kind=custom`. `trainer.builder` names what is called as

        builder(configuration, images, labels, seed, device, **trainer.options)

    with the Configuration, the training subset's images [N, C, R, R] uint8 and labels [N] int64 or
    None (both on the CPU, copies of its own), the trial's seed and a torch.device, and returns an object with the four
    methods below. It may use the configuration's network and diffusion, or ignore them. torch's
    global generator is seeded before it is built. So that a trial which was interrupted ends as if
    it had not been, take all randomness of a step from (seed, images trained so far).

    Two attributes are optional: `images_trained`, the number of images seen so far, if that isn't
    exactly what was asked for; and a method `take_loss() -> float`, the mean loss since the last
    call, for the curve.
    """

    def train_until(self, progress: float) -> None:
        """Trains on, until the share `progress` (0 … 1) of the whole training is done; it is called
        with rising values.

        The whole is configuration.trainer.train_images(N) images or train_steps(N) steps.
        """

    def sample(self, seeds: list[int], labels: Tensor | None) -> Tensor:
        """One image per seed (63-bit integers), [len(seeds), C, R, R] uint8; labels [len(seeds)]
        int64, or None.

        An image depends on its seed and label alone, and sampling does not change the training that
        follows.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that a new trainer needs to go on and to sample: tensors, numbers, text, lists and
        dictionaries of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; its tensors are on the CPU."""


class CustomTrainerAdapter:
    """Has the interface `AnyTrainer`, and a YourTrainer inside. What the inner one does wrong
    raises TrialFailed."""

    def __init__(
        self,
        configuration: Configuration,
        images: Tensor,
        labels: Tensor | None,
        seed: int,
        device: torch.device,
    ) -> None:
        recipe = configuration.trainer
        assert isinstance(recipe, CustomTrainer)
        self.name, self.shape = recipe.builder, list(images.shape[1:])  # of an image
        self.total = recipe.train_images(len(images))
        self.position = 0  # images trained so far
        self.interrupted = False  # has no effect: the inner trainer's slices are short
        torch.manual_seed(derive_seed("initialization", key_of(identity(recipe)), seed))
        builder = load_code(recipe.builder, "trainer.builder")
        # copies of its own: it may write into them, and samples are compared with ours
        labels = None if labels is None else labels.clone()
        self.inner: YourTrainer = builder(
            configuration, images.clone(), labels, seed, device, **recipe.options
        )
        missing = _missing_methods(self.inner)
        if missing:
            raise TrialFailed(f"trainer.builder={self.name}: what it returns has no {missing}")

    @property
    def progress(self) -> float:
        return self.position / self.total

    def train_until(self, progress: float) -> None:
        self.inner.train_until(progress)
        asked = math.ceil(progress * self.total - 1e-6)
        self.position = max(asked, int(getattr(self.inner, "images_trained", 0)))

    def take_loss(self) -> float | None:
        """Raises TrialFailed if it is not finite; None if the inner trainer doesn't tell."""
        take = getattr(self.inner, "take_loss", None)
        if take is None:
            return None
        loss = float(take())
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss is not finite after {self.position} images")
        return loss

    def sample(
        self, seeds: list[int], measurement: Measurement, labels: Tensor | None = None
    ) -> Tensor:
        """One image per seed, `measurement.at_once` at a time: [len(seeds), C, R, R] uint8 on the
        CPU."""
        images = []
        for start in range(0, len(seeds), measurement.at_once):
            batch = slice(start, start + measurement.at_once)
            images.append(self._sample(seeds[batch], None if labels is None else labels[batch]))
        return torch.cat(images)

    def _sample(self, seeds: list[int], labels: Tensor | None) -> Tensor:
        images: object = self.inner.sample(seeds, labels)  # of the user's: anything
        wanted = f"torch.uint8 {[len(seeds), *self.shape]}"
        given = type(images).__name__
        if isinstance(images, Tensor):
            given = f"{images.dtype} {list(images.shape)}"
        if not isinstance(images, Tensor) or given != wanted:
            raise TrialFailed(
                f"trainer.builder={self.name}: sample() must give {wanted} for {len(seeds)} seeds, "
                f"not {given}"
            )
        return images.cpu()

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "trainer": self.sampling_weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.load_sampling_weights(state["trainer"])

    def sampling_weights(self) -> Any:
        """A copy of the whole state, for only the inner trainer knows what of it samples; on the
        CPU."""
        return plain_copy(self.inner.state_dict(), "state_dict()")

    def load_sampling_weights(self, state: Any) -> None:
        """Raises TrialFailed if the inner trainer does not take over what it gave: the samples of
        another moment would be measured."""
        asked = plain_copy(state, "state_dict()")
        self.inner.load_state_dict(state)
        where = first_difference(asked, self.sampling_weights(), "state_dict()")
        if where is not None:
            raise TrialFailed(
                f"trainer.builder={self.name}: after load_state_dict(), {where} is not what was given"
            )


def plain_copy(value: Any, where: str) -> Any:
    """A copy with all tensors on the CPU. Raises TrialFailed for what torch.load(weights_only=True)
    would refuse."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: plain_copy(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_copy(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TrialFailed(
        f"{where} is a {type(value).__name__}; "
        "keep tensors, numbers, text, and lists and dictionaries of them"
    )


def first_difference(a: Any, b: Any, where: str) -> str | None:
    """Where two `plain_copy` differ; None if they are the same, numbers bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        is_same = a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        return None if is_same else where
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        parts = ((f"{where}[{key!r}]", a[key], b[key]) for key in a)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = ((f"{where}[{i}]", *both) for i, both in enumerate(zip(a, b, strict=True)))
    else:
        is_same = a == b or (a != a and b != b)  # nan is the same as nan
        return None if is_same else where
    found = (first_difference(one, other, place) for place, one, other in parts)
    return next((place for place in found if place is not None), None)


def check_custom(configuration: Configuration, label_dim: int = 0) -> None:
    """Raises UserError if code of the user's that a configuration names can't be found or used. To
    be called before a start."""
    data = configuration.data
    if isinstance(configuration.network, CustomNetwork):
        build_custom(configuration.network, data.resolution, data.channels, label_dim)
    if isinstance(configuration.trainer, CustomTrainer):
        builder = load_code(configuration.trainer.builder, "trainer.builder")
        where = f"trainer.builder={configuration.trainer.builder}"
        if isinstance(builder, type) and (missing := _missing_methods(builder)):
            raise UserError(f"{where}: the class has no {missing}")
        _check_call(builder, configuration.trainer.options, where)


def _check_call(builder: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Raises UserError if it can't be called with what it will be given."""
    try:
        signature = inspect.signature(builder)
    except ValueError:  # of a builtin, which has none
        return
    try:
        signature.bind("configuration", "images", "labels", "seed", "device", **options)
    except TypeError as error:
        raise UserError(
            f"{where}: {in_a_line(error)}, called with configuration, images, labels, seed, device "
            f"and the options {', '.join(options) or '(none)'}"
        ) from None


def _missing_methods(trainer: object) -> str:
    return ", ".join(method for method in METHODS if not callable(getattr(trainer, method, None)))
