"""DDPM++ and NCSN++: the U-Net of Song et al. 2021 (arXiv 2011.13456) as Karras et al. 2022 and Gu
et al. 2023 train it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config.network import UNet
from trainables.networks.blocks import (
    DownConv,
    FourierEmbedding,
    LabelEmbedding,
    PositionalEmbedding,
    ResidualBlock,
    conv,
    group_norm,
    linear,
)


class SongUNet(nn.Module):
    """Predicts F(x, noise_level): [B, channels, R, R] float, [B] float -> [B, channels, R, R]
    float.

    The encoder keeps the output of its first convolution, of every block and of every downsampling;
    the decoder, one block deeper per resolution, takes them back in reverse order. `config.skips`
    numbers them from the input on; a removed one is replaced by zeros, so that no shape and no
    parameter count changes.

    NCSN++ has a residual encoder: the image, halved by strided convolutions, is added at every
    lower resolution. With label_dim > 0 it also takes labels [B] int64.
    """

    def __init__(self, config: UNet, resolution: int, channels: int, label_dim: int = 0) -> None:
        super().__init__()
        is_ncsnpp = config.kind == "ncsnpp"
        taps = (1, 3, 3, 1) if is_ncsnpp else (1, 1)
        width, embedding = config.width, 4 * config.width
        noise = 2 * width if is_ncsnpp else width
        is_positional = config.time_embedding == "positional"
        self.embed = PositionalEmbedding(noise) if is_positional else FourierEmbedding(noise)
        self.label = LabelEmbedding(label_dim, noise) if label_dim else None
        self.map0, self.map1 = linear(noise, embedding), linear(embedding, embedding)

        def block(
            c_in: int, c_out: int, attention: bool = False, mode: str | None = None
        ) -> ResidualBlock:
            return ResidualBlock(c_in, c_out, embedding, config.dropout, attention, mode, taps)

        levels = [
            (resolution >> level, width * multiplier)
            for level, multiplier in enumerate(config.multipliers)
        ]
        self.stem = conv(channels, width)
        self.encoder, self.pyramid = nn.ModuleList(), nn.ModuleDict()
        c, kept = width, [width]  # channels of what comes next, and of all that a skip may take
        pyramid_channels = channels
        for level, (r, c_out) in enumerate(levels):
            if level:
                if is_ncsnpp:
                    self.pyramid[str(len(self.encoder))] = DownConv(pyramid_channels, c, taps)
                    pyramid_channels = c
                self.encoder.append(block(c, c, mode="down"))
                kept.append(c)
            for _ in range(config.depth):
                self.encoder.append(block(c, c_out, attention=r in config.attention))
                c = c_out
                kept.append(c)
        self.keep = config.skips if config.skips is not None else (True,) * len(kept)

        self.middle = nn.ModuleList([block(c, c, attention=True), block(c, c)])
        self.decoder, self.takes_skip = nn.ModuleList(), []
        for level, (r, c_out) in reversed(list(enumerate(levels))):
            if level + 1 < len(levels):
                self.decoder.append(block(c, c, mode="up"))
                self.takes_skip.append(False)
            for index in range(config.depth + 1):
                attends = index == config.depth and r in config.attention
                self.decoder.append(block(c + kept.pop(), c_out, attends))
                self.takes_skip.append(True)
                c = c_out
        self.norm = group_norm(c)
        self.head = conv(c, channels, scale=1e-5)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(noise_level)
        if self.label is not None:
            embedding = embedding + self.label(labels)
        embedding = F.silu(self.map1(F.silu(self.map0(embedding))))
        image, x = x, self.stem(x)
        skips = [x]
        for position, block in enumerate(self.encoder):
            x = block(x, embedding)
            if str(position) in self.pyramid:
                x = image = (x + self.pyramid[str(position)](image)) * math.sqrt(0.5)
            skips.append(x)
        for index, keep in enumerate(self.keep):
            if not keep:
                skips[index] = skips[index].new_zeros(()).expand_as(skips[index])
        for block in self.middle:
            x = block(x, embedding)
        for block, takes_skip in zip(self.decoder, self.takes_skip, strict=True):
            if takes_skip:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, embedding)
        return self.head(F.silu(self.norm(x)))  # type: ignore[no-any-return]
