"""The diffusion transformer with adaLN-Zero conditioning of Peebles & Xie 2022 (arXiv
2212.09748)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config.network import DiT as DiTShape
from trainables.networks.blocks import LabelEmbedding, PositionalEmbedding, linear

FREQUENCIES = 256  # of the noise embedding, as in the paper


class DiT(nn.Module):
    """Predicts F(x, noise_level): [B, channels, R, R] float, [B] float -> [B, channels, R, R]
    float.

    Every patch of the image is a token with a fixed sine-cosine position; noise level and label [B]
    int64 (label_dim > 0) scale, shift and gate every block. All blocks start as the identity, and
    the output as 0.
    """

    positions: Tensor

    def __init__(self, shape: DiTShape, resolution: int, channels: int, label_dim: int = 0) -> None:
        super().__init__()
        width, depth, heads = shape.shape
        self.patch, self.side = shape.patch, resolution // shape.patch
        self.embed = PositionalEmbedding(FREQUENCIES)
        self.map0, self.map1 = linear(FREQUENCIES, width), linear(width, width)
        for layer in (self.map0, self.map1):
            nn.init.normal_(layer.weight, std=0.02)
        self.label = LabelEmbedding(label_dim, width) if label_dim else None
        self.stem = linear(channels * self.patch**2, width)
        self.register_buffer("positions", sine_cosine_positions(self.side, width), persistent=False)
        self.blocks = nn.ModuleList([DiTBlock(width, heads) for _ in range(depth)])
        self.modulation = zero_linear(width, 2 * width)
        self.head = zero_linear(width, channels * self.patch**2)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.map1(F.silu(self.map0(self.embed(noise_level))))
        if self.label is not None:
            condition = condition + self.label(labels)
        condition = F.silu(condition)
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        tokens = self.stem(patches) + self.positions  # [B, T, width]
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        patches = self.head(modulated(tokens, shift, scale)).transpose(1, 2)
        return F.fold(patches, x.shape[2:], self.patch, stride=self.patch)


class DiTBlock(nn.Module):
    """Self-attention and a two-layer MLP, each scaled, shifted and gated by the condition: [B, T,
    W], [B, W] -> [B, T, W]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = linear(width, 3 * width), linear(width, width)
        self.expand, self.contract = linear(width, 4 * width), linear(4 * width, width)
        self.modulation = zero_linear(width, 6 * width)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        modulation = self.modulation(condition)[:, None]
        shift0, scale0, gate0, shift1, scale1, gate1 = modulation.chunk(6, dim=-1)
        tokens = tokens + gate0 * self._attend(modulated(tokens, shift0, scale0))
        hidden = F.gelu(self.expand(modulated(tokens, shift1, scale1)), approximate="tanh")
        return tokens + gate1 * self.contract(hidden)  # type: ignore[no-any-return]

    def _attend(self, tokens: Tensor) -> Tensor:
        heads = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, T, W / heads]
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights of its own, then scale and shift from the condition."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    layer = linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    return layer


def sine_cosine_positions(side: int, width: int) -> Tensor:
    """Position of each of side² tokens, row by row: [side², width]; half of the channels for the
    row, half for the column."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    return torch.cat([waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)], dim=1)
