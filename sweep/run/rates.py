"""How fast a device is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What a device does: images trained per second, network calls in sampling, of one image, per
    second."""

    trained: float
    sampled: float
