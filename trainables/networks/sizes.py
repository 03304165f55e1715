"""How large a network is and what a call of it costs, by arithmetic: without torch, whose import
alone takes longer than all the rest of a plan.

The terms stand in the order in which each network builds its layers. The numbers are those of
torch's own counter (tests/networks/test_sizes.py); what it does not count, like norms, sums and
look-ups, is not counted here.
"""

from typing import NamedTuple

from trainables.config.network import MLP, AnyNetwork, DiT, UNet

FREQUENCIES = 256  # of DiT's noise embedding


class Size(NamedTuple):
    """Parameters, and FLOPs of a forward pass of one image."""

    parameters: int
    flops: int


def size_of_network(
    network: AnyNetwork, resolution: int, channels: int, label_dim: int = 0
) -> Size | None:
    """None for a network of the user's, which must be built to be counted, and for the optimum."""
    if isinstance(network, UNet):
        return _unet(network, resolution, channels, label_dim)
    if isinstance(network, DiT):
        return _dit(network, resolution, channels, label_dim)
    if isinstance(network, MLP):
        return _mlp(network, channels * resolution**2, label_dim)
    return None


def _unet(config: UNet, resolution: int, channels: int, label_dim: int) -> Size:
    is_ncsnpp = config.kind == "ncsnpp"
    taps = 4 if is_ncsnpp else 0  # of the filter for resampling, where it has weights
    width, embedding = config.width, 4 * config.width
    noise = 2 * width if is_ncsnpp else width

    def block(
        c_in: int, c_out: int, side: int, attention: bool = False, mode: str | None = None
    ) -> list[Size]:
        reshapes = mode is not None or c_in != c_out
        # both branches; a filter is applied at the lower of the two resolutions
        filtered = {"down": side, "up": side // 2, None: 0}[mode]
        return [
            *2 * [_filter(c_in, taps, filtered)],
            *(_norm(c_in), _conv(c_in, c_out, 3, side), _linear(embedding, c_out)),
            *(_norm(c_out), _conv(c_out, c_out, 3, side)),
            *([_conv(c_in, c_out, 1, side)] if reshapes else []),
            *(_attention(c_out, side) if attention else []),
        ]

    levels = [
        (resolution >> level, width * multiplier)
        for level, multiplier in enumerate(config.multipliers)
    ]
    parts = [*_embedded(label_dim, noise), _linear(noise, embedding), _linear(embedding, embedding)]
    parts.append(_conv(channels, width, 3, resolution))
    c, kept, pyramid = width, [width], channels
    for level, (side, c_out) in enumerate(levels):
        if level:
            if is_ncsnpp:  # a convolution that goes a pixel beyond each edge, then the filter
                parts += [_conv(pyramid, c, 3, 2 * side + 2), _filter(c, taps, side)]
                pyramid = c
            parts += block(c, c, side, mode="down")
            kept.append(c)
        for _ in range(config.depth):
            parts += block(c, c_out, side, side in config.attention)
            c = c_out
            kept.append(c)
    parts += block(c, c, levels[-1][0], attention=True) + block(c, c, levels[-1][0])
    for level, (side, c_out) in reversed(list(enumerate(levels))):
        if level + 1 < len(levels):
            parts += block(c, c, side, mode="up")
        for index in range(config.depth + 1):
            attends = index == config.depth and side in config.attention
            parts += block(c + kept.pop(), c_out, side, attends)
            c = c_out
    return _sum([*parts, _norm(c), _conv(c, channels, 3, resolution)])


def _dit(config: DiT, resolution: int, channels: int, label_dim: int) -> Size:
    width, depth, _ = config.shape
    tokens, pixels = (resolution // config.patch) ** 2, channels * config.patch**2
    block = [
        *(_linear(width, 3 * width, tokens), _linear(width, width, tokens)),
        *(_linear(width, 4 * width, tokens), _linear(4 * width, width, tokens)),
        *(_linear(width, 6 * width), _attended(width, tokens)),
    ]
    return _sum(
        [
            *(_linear(FREQUENCIES, width), _linear(width, width), *_embedded(label_dim, width)),
            *(_linear(pixels, width, tokens), *depth * block),
            *(_linear(width, 2 * width), _linear(width, pixels, tokens)),
        ]
    )


def _mlp(config: MLP, pixels: int, label_dim: int) -> Size:
    width = config.width
    block = [_norm(width), *3 * [_linear(width, width)]]
    return _sum(
        [
            *(*_embedded(label_dim, width), *2 * [_linear(width, width)], _linear(pixels, width)),
            *(*config.depth * block, _norm(width), _linear(width, pixels)),
        ]
    )


def _sum(parts: list[Size]) -> Size:
    return Size(sum(part.parameters for part in parts), sum(part.flops for part in parts))


def _linear(c_in: int, c_out: int, rows: int = 1) -> Size:
    return Size(c_in * c_out + c_out, 2 * c_in * c_out * rows)


def _conv(c_in: int, c_out: int, kernel: int, side: int) -> Size:
    """`side`: of what comes out."""
    weights = c_in * c_out * kernel**2
    return Size(weights + c_out, 2 * weights * side**2)


def _filter(channels: int, taps: int, side: int) -> Size:
    """One for all channels, which is not trained."""
    return Size(0, 2 * channels * taps**2 * side**2)


def _norm(channels: int) -> Size:
    return Size(2 * channels, 0)


def _embedded(label_dim: int, channels: int) -> list[Size]:
    """A table that is looked up in; none without labels."""
    return [Size(label_dim * channels + channels, 0)] if label_dim else []


def _attention(channels: int, side: int) -> list[Size]:
    qkv, proj = _conv(channels, 3 * channels, 1, side), _conv(channels, channels, 1, side)
    return [_norm(channels), qkv, proj, _attended(channels, side**2)]


def _attended(channels: int, tokens: int) -> Size:
    """Products of queries and keys, and of these and the values; heads share the channels."""
    return Size(0, 4 * channels * tokens**2)
