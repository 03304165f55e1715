"""Functions that give images features, right and wrong ones."""

import torch

calls = 0


def sorted_pixels(images, device, power=1.0):
    """The same for all images with the same pixels, wherever they are."""
    pixels = images.to(device).flatten(1).float() / 255 + 1e-3
    return pixels.sort(dim=1).values ** power


def wrong(images, device, how):
    global calls
    calls += 1
    features = sorted_pixels(images, device)
    if how == "raises":
        raise RuntimeError("mat1 and mat2 differ\nand more lines")
    if how == "random":
        return features + 0.2 * torch.rand_like(features)
    if how == "counts calls":
        return torch.roll(features, calls, dims=1)
    if how == "batchnorm":
        return (features - features.mean(dim=0)) / (features.std(dim=0) + 1e-3)
    if how == "order":
        return features * torch.arange(1, len(features) + 1)[:, None] + torch.eye(
            len(features), features.shape[1]
        )
    return {
        "numpy": features.numpy(),
        "int": features.int(),
        "flat": features.flatten(),
        "row": features[:1],
        "nan": features * torch.nan,
        "zeros": features * 0,
        "same": features * 0 + 1,
    }[how]


NOT_A_FUNCTION = 3


def pixels(images, device):
    return images.to(device).flatten(1).float() - 127.5


def overwriting(images, device):
    return pixels(images.bitwise_not_(), device)


def spectrum(images, device):
    """Magnitudes of the Fourier transform, which do not see where in a (cyclic) image a thing is."""
    return torch.fft.rfft2(images.to(device).float() / 255).abs().flatten(1)


counted = 0


def counting(images, device, power=1.0):
    global counted
    counted += len(images)
    return sorted_pixels(images, device, power)
