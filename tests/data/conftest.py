"""CIFAR-10 in small."""

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
from torchvision.datasets import CIFAR10


@pytest.fixture
def cifar_archive(tmp_path, monkeypatch):
    """A directory with an archive in CIFAR-10's format, 10 images to a batch, and torchvision's
    checksums set to it."""

    def md5(content):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    rng = np.random.default_rng(1)
    contents = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (10, 3072)).astype(np.uint8)
        contents[name] = pickle.dumps({"data": pixels, "labels": list(range(10))})
    contents["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    source = tmp_path / "source" / "cifar-10-batches-py"
    source.mkdir(parents=True)
    for name, content in contents.items():
        (source / name).write_bytes(content)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(source, arcname="cifar-10-batches-py")
    monkeypatch.setattr(
        CIFAR10,
        "train_list",
        [[name, md5(contents[name])] for name in sorted(contents) if "data" in name],
    )
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(contents["test_batch"])]])
    monkeypatch.setattr(
        CIFAR10,
        "meta",
        {"filename": "batches.meta", "key": "label_names", "md5": md5(contents["batches.meta"])},
    )
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((root / "cifar-10-python.tar.gz").read_bytes()))
    monkeypatch.setattr(
        CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz"
    )  # nobody answers there
    first = pickle.loads(contents["data_batch_1"])["data"]
    return root, first
