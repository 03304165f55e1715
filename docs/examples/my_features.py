"""Features by weights that you have on disk, for `measurement.features`; see docs/features.md.

    emm remeasure DIR --features my_features:sscd \
        --features-options path=/weights/sscd_disc_mixup.torchscript.pt
    emm remeasure DIR --features my_features:dinov2 --features-options code=/code/dinov2 \
        --features-options path=/weights/dinov2_vits14_pretrain.pth
"""

from functools import cache

import torch
from torch.nn.functional import interpolate

# of ImageNet, as both models were trained with
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sscd(images, device, path, size=288):
    """SSCD (Pizzi et al. 2022, arXiv 2202.10261), made to find copies, by a file *.torchscript.pt."""
    return script(path, device)(prepared(images, device, size))


def dinov2(images, device, code, path, name="dinov2_vits14", size=98):
    """DINOv2 (Oquab et al. 2023, arXiv 2304.07193). code: a clone of its repository; path: a file
    *_pretrain.pth; size: a multiple of 14."""
    return transformer(code, name, path, device)(prepared(images, device, size))


def prepared(images, device, size):
    """[n, 1 or 3, R, R] uint8 → [n, 3, size, size] float, as the models want them."""
    pixels = images.to(device).float().expand(-1, 3, -1, -1) / 255
    resized = interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    mean, deviation = (torch.tensor(x, device=device)[:, None, None] for x in (MEAN, DEVIATION))
    return (resized - mean) / deviation


@cache  # loaded once, not for every 64 images
def script(path, device):
    return torch.jit.load(path, map_location=device).eval()


@cache
def transformer(code, name, path, device):
    model = torch.hub.load(code, name, source="local", pretrained=False)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().to(device)
