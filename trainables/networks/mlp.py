"""A residual multilayer perceptron on the flattened image: the smallest network that can memorize
small data."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config.network import MLP as MLPShape
from trainables.networks.blocks import LabelEmbedding, PositionalEmbedding, linear


class MLP(nn.Module):
    """Predicts F(x, noise_level): [B, channels, R, R] float, [B] float -> [B, channels, R, R]
    float.

    With label_dim > 0 it also takes labels [B] int64. The output starts near 0.
    """

    def __init__(self, shape: MLPShape, resolution: int, channels: int, label_dim: int = 0) -> None:
        super().__init__()
        width, pixels = shape.width, channels * resolution**2
        self.embed = PositionalEmbedding(width)
        self.label = LabelEmbedding(label_dim, width) if label_dim else None
        self.map0, self.map1 = linear(width, width), linear(width, width)
        self.stem = linear(pixels, width)
        self.blocks = nn.ModuleList([MLPBlock(width, shape.dropout) for _ in range(shape.depth)])
        self.norm = nn.LayerNorm(width)
        self.head = linear(width, pixels)
        nn.init.xavier_uniform_(self.head.weight, gain=1e-5)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(noise_level)
        if self.label is not None:
            embedding = embedding + self.label(labels)
        embedding = F.silu(self.map1(F.silu(self.map0(embedding))))
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(F.silu(self.norm(h))).reshape(x.shape)  # type: ignore[no-any-return]


class MLPBlock(nn.Module):
    """Two layers around a sum with the embedding, and a residual connection: [B, W], [B, W] -> [B,
    W]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm, self.inner = nn.LayerNorm(width), linear(width, width)
        self.affine, self.outer = linear(width, width), linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inner = F.silu(self.inner(F.silu(self.norm(h))) + self.affine(embedding))
        inner = self.outer(F.dropout(inner, self.dropout, self.training))
        return (h + inner) * math.sqrt(0.5)  # type: ignore[no-any-return]
