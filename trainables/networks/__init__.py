"""Name → network. A network is anything called (x, noise_level, labels) that returns the shape of x."""

from collections.abc import Callable
from typing import Any

from torch import nn

from trainables.networks.song_unet import SongUNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {"ddpmpp": SongUNet}


def build_network(config: Any, resolution: int, channels: int, label_dim: int = 0) -> nn.Module:
    """The network that `config.kind` names, for images [channels, resolution, resolution] and labels 0 … label_dim − 1."""
    return NETWORKS[config.kind](config, resolution, channels, label_dim)
