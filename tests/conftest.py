"""One thread per test process: small tensors are faster so, and resumed training is compared bit for bit."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
