"""The parts a score network is made of: residual block with attention, time embeddings,
resampling."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_channels: int, out_channels: int, kernel: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """A same-size convolution with Glorot-uniform weights times `scale` and zero bias."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight, gain=scale)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A fully connected layer with Glorot-uniform weights and zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class GroupNorm(nn.GroupNorm):
    """torch's. In a compiled network by operations that leave channels last, which torch's own way
    there turns to first and back."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        groups = torch.unflatten(x.float(), 1, (self.num_groups, -1))
        variance, mean = torch.var_mean(groups, (2, 3, 4), correction=0, keepdim=True)
        normal: Tensor = ((groups - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def group_norm(channels: int) -> GroupNorm:
    """At most 32 groups, of at least 4 channels each (the largest such number that divides
    `channels`)."""
    groups = min(32, max(channels // 4, 1))
    while channels % groups:
        groups -= 1
    return GroupNorm(groups, channels, eps=1e-6)


def resample(x: Tensor, mode: str | None, taps: tuple[int, ...] = (1, 1)) -> Tensor:
    """Halves ("down") or doubles ("up") the resolution of [B, C, H, W] with the separable filter
    `taps`, of even length.

    Outside the image is 0. [1, 1] is average pooling and nearest neighbour.
    """
    if mode is None:
        return x
    if taps == (1, 1) and mode == "down":
        return F.avg_pool2d(x, 2)
    if taps == (1, 1) and torch.compiler.is_compiling():
        # channels stay last, and the gradient is a sum where that of `interpolate` scatters
        rows = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    if taps == (1, 1):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    kernel, padding = _filter(x, taps), len(taps) // 2 - 1
    if mode == "down":
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])
    return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=x.shape[1])


def _filter(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """The two-dimensional filter of `taps`, of sum 1, one copy per channel of x: [C, 1, len(taps),
    len(taps)]."""
    row = torch.tensor(taps, dtype=x.dtype, device=x.device) / sum(taps)
    return row.outer(row).expand(x.shape[1], 1, -1, -1)


class DownConv(nn.Conv2d):
    """A 3×3 convolution whose output is halved by `taps`: [B, in_channels, H, W] -> [B,
    out_channels, H/2, W/2].

    The convolution goes beyond the edge by as much as the filter takes, so that the filter needs no
    padding of its own.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: tuple[int, ...]) -> None:
        super().__init__(in_channels, out_channels, 3, padding=len(taps) // 2)
        self.taps = taps
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.conv2d(x, _filter(x, self.taps), stride=2, groups=x.shape[1])


class LabelEmbedding(nn.Module):
    """The linear layer of Karras et al. 2022 on one-hot labels times √label_dim, as a table
    look-up.

    Labels [B] int64 in 0 … label_dim − 1 -> [B, channels]; the same weights, gradients and initial
    distribution as the product, at a cost that does not grow with label_dim.
    """

    def __init__(self, label_dim: int, channels: int) -> None:
        super().__init__()
        layer = linear(label_dim, channels)
        self.table = nn.Parameter(layer.weight.detach().T.contiguous())
        self.bias = layer.bias
        self.scale = math.sqrt(label_dim)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.table) * self.scale + self.bias


class PositionalEmbedding(nn.Module):
    """Sines and cosines of a noise level, [B] -> [B, channels]; frequencies 1 … 1e-4, geometric,
    both ends included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, noise_level: Tensor) -> Tensor:
        exponents = torch.linspace(0, 1, self.channels // 2, device=noise_level.device)
        angles = noise_level.float()[:, None] * (1e-4**exponents)[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Random Fourier features (Song et al. 2021) of a noise level, [B] -> [B, channels]; the
    frequencies are not trained."""

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(channels // 2) * scale)

    def forward(self, noise_level: Tensor) -> Tensor:
        angles = 2 * math.pi * noise_level.float()[:, None] * self.frequencies[None, :]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Attention(nn.Module):
    """Self-attention over all pixels, one head, [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = conv(channels, 3 * channels, kernel=1, scale=math.sqrt(0.2))
        self.proj = conv(channels, channels, kernel=1, scale=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return self.proj(attended)  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """The residual block of DDPM++: norm, SiLU, convolution, twice; the time embedding is added in
    between.

    x [B, in_channels, H, W], embedding [B, E] -> [B, out_channels, H', W']; both branches are
    resampled by `mode` with filter `taps`, and every sum is scaled by √½, so that the variance
    stays (Song et al. 2021, appendix H).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        dropout: float,
        attention: bool = False,
        mode: str | None = None,
        taps: tuple[int, ...] = (1, 1),
    ) -> None:
        super().__init__()
        self.mode, self.taps = mode, taps
        self.dropout = dropout
        self.norm0 = group_norm(in_channels)
        self.conv0 = conv(in_channels, out_channels)
        self.affine = linear(embedding, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = conv(out_channels, out_channels, scale=1e-5)
        reshapes = mode is not None or in_channels != out_channels
        self.skip = conv(in_channels, out_channels, kernel=1) if reshapes else nn.Identity()
        self.attention = Attention(out_channels) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(resample(F.silu(self.norm0(x)), self.mode, self.taps))
        h = F.silu(self.norm1(h + self.affine(embedding)[:, :, None, None]))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + self.skip(resample(x, self.mode, self.taps))) * math.sqrt(0.5)
        return x if self.attention is None else (x + self.attention(x)) * math.sqrt(0.5)
