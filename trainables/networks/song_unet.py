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
        self.embed = (
            PositionalEmbedding(noise)
            if config.time_embedding == "positional"
            else FourierEmbedding(noise)
        )
        self.label = LabelEmbedding(label_dim, noise) if label_dim else None
        self.map0, self.map1 = linear(noise, embedding), linear(embedding, embedding)

        def block(
            c_in: int, c_out: int, attention: bool = False, mode: str | None = None
        ) -> ResidualBlock:
            return ResidualBlock(c_in, c_out, embedding, config.dropout, attention, mode, taps)

        widths = [width * multiplier for multiplier in config.multipliers]
        resolutions = [resolution >> level for level in range(len(widths))]
        self.stem = conv(channels, width)
        self.encoder, self.pyramid, kept, c = nn.ModuleList(), nn.ModuleDict(), [width], width
        pyramid_channels = channels
        for level, (r, c_out) in enumerate(zip(resolutions, widths, strict=True)):
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
        for level, (r, c_out) in reversed(list(enumerate(zip(resolutions, widths, strict=True)))):
            if level + 1 < len(widths):
                self.decoder.append(block(c, c, mode="up"))
                self.takes_skip.append(False)
            for index in range(config.depth + 1):
                last = index == config.depth
                self.decoder.append(
                    block(c + kept.pop(), c_out, attention=last and r in config.attention)
                )
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
        skips = [
            skip if keep else skip.new_zeros(()).expand_as(skip)
            for skip, keep in zip(skips, self.keep, strict=True)
        ]
        for block in self.middle:
            x = block(x, embedding)
        for block, takes_skip in zip(self.decoder, self.takes_skip, strict=True):
            x = block(torch.cat([x, skips.pop()], dim=1) if takes_skip else x, embedding)
        return self.head(F.silu(self.norm(x)))  # type: ignore[no-any-return]
