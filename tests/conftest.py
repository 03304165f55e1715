"""One thread per test process: small tensors are faster so, and resumed training is compared bit for bit."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def short_path():
    """Ray's sockets need short paths, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="emm") as path:
        yield Path(path)
