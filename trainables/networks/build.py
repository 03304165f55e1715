"""A network by its configuration. It is anything called (x, noise_level, labels) that returns the
shape of x."""

import torch
from torch import nn

from trainables.config.code import load_code
from trainables.config.network import AnyNetwork


def build_network(
    network: AnyNetwork, resolution: int, channels: int, label_dim: int = 0
) -> nn.Module:
    """The untrained network, for images [channels, resolution, resolution] and `label_dim` distinct
    labels; its weights are drawn from torch's global generator.

    With label_dim = 0 it is unconditional, and labels may be None.
    """
    # a plan builds on the meta device, but a module is imported once, for trainings too
    with torch.device("cpu"):
        builder = load_code(network.built_by, "network.built_by")
    built: nn.Module = builder(network, resolution, channels, label_dim)
    return built
