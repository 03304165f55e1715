"""Name → network. A network is anything called (x, noise_level, labels) that returns the shape of
x."""

from collections.abc import Callable
from typing import Any

from torch import nn

from trainables.networks.custom import build_custom
from trainables.networks.dit import DiT
from trainables.networks.mlp import MLP
from trainables.networks.song_unet import SongUNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ddpmpp": SongUNet, "ncsnpp": SongUNet, "dit": DiT, "mlp": MLP, "custom": build_custom
}  # fmt: skip


def build_network(config: Any, resolution: int, channels: int, label_dim: int = 0) -> nn.Module:
    """The network that `config.kind` names, for images [channels, resolution, resolution] and
    `label_dim` distinct labels.

    With label_dim = 0 it is unconditional, and labels may be None.
    """
    return NETWORKS[config.kind](config, resolution, channels, label_dim)
