"""What another eye than pixels sees: photographs changed in known ways, judged in pixels and in the
features of EfficientNet-Lite0, by both rules.

    python -m benchmarks.features [N]

The table of docs/features.md. 100 of N training patches of 32×32 are changed; 1,000 held-out ones
give the threshold and the null rate. About a minute on one core for each call of the network.
"""

import sys

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from trainables.config.data import Photos
from trainables.config.measurement import Measurement
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.measure.features import FeatureBank, open_features
from trainables.measure.neighbours import nearest_two

CHANGED, HELD_OUT = 100, 1000


def changes(images: Tensor) -> dict[str, Tensor]:
    """By name, each [n, 3, 32, 32] uint8."""
    x, noise = images.float(), torch.Generator().manual_seed(0)
    changed = {
        "as they are": x,
        "moved by 2 pixels": x.roll((2, 2), (-2, -1)),
        "mirrored": x.flip(-1),
        "darker by 40 %": 0.6 * x,
        "contrast 60 %": 128 + 0.6 * (x - 128),
        "noise of sd 10": x + 10 * torch.randn(x.shape, generator=noise),
        "blurred 3×3": avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1),
        "enlarged by a third": interpolate(x[..., 4:-4, 4:-4], (32, 32), mode="bicubic"),
    }
    return {name: y.round().clip(0, 255).byte() for name, y in changed.items()}


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    photos = load(Photos())
    order = subset_order(photos, 0)
    cuts = (0, n, n + HELD_OUT, n + HELD_OUT + CHANGED)
    training, held_out, new = (
        torch.from_numpy(photos.images[order[start:end]])
        for start, end in zip(cuts, cuts[1:], strict=False)
    )
    asked = {**changes(training[:CHANGED]), "new photographs": new}
    pixels = nearest_two(torch.cat([*asked.values(), held_out]), training).memorized()
    shares = [[part.mean() for part in _parts(pixels[: -len(held_out)])]]
    nulls = [pixels[-len(held_out) :].mean()]
    for rule in ("ratio", "distance"):
        how = Measurement(features="trainables.measure.lite0:features", features_rule=rule)
        features = open_features(how, (3, 32, 32), torch.device("cpu"))
        assert features is not None
        seen = FeatureBank(features, training, held_out).look_at(torch.cat(list(asked.values())))
        shares.append([part.mean() for part in _parts(seen.copies)])
        nulls.append(seen.null_rate)
    print("| training images | pixels | features, ratio | features, distance |")
    print("|---|---|---|---|")
    for name, of_name in zip(asked, zip(*shares, strict=True), strict=True):
        print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in of_name) + " |")
    print("| null rate | " + " | ".join(f"{rate:.3f}" for rate in nulls) + " |")


def _parts(found):
    return [found[start : start + CHANGED] for start in range(0, len(found), CHANGED)]


if __name__ == "__main__":
    main()
