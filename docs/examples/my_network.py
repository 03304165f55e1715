"""A network of your own for emm: a few convolutions that keep the resolution. docs/custom.md shows
how to run it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """x [B, channels, R, R] float, noise_level [B] float, labels [B] int64 or None -> [B, channels,
    R, R] float."""

    def __init__(self, channels: int, label_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.noise = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(label_dim, width) if label_dim else None
        # depth 6 sees 15×15 pixels
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(depth))
        self.head = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        angles = noise_level[:, None] * torch.tensor([0.5, 1.0, 2.0, 4.0], device=x.device)
        condition = self.noise(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.label is not None:
            condition = condition + self.label(labels)
        x = self.stem(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(F.silu(norm(x) + condition[:, :, None, None]))
        return self.head(F.silu(x))


def conv_net(
    resolution: int, channels: int, label_dim: int, width: int = 32, depth: int = 6
) -> nn.Module:
    """The builder. Everything after `label_dim` is one of `network.options`."""
    return ConvNet(channels, label_dim, width, depth)
