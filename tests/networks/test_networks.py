"""Networks against the parameter counts and structures that their papers state; their parts against
known behaviour."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from tests.networks.test_every_network import random_network
from trainables.config.network import MLP, DDPMpp, DiT, NCSNpp
from trainables.networks.blocks import (
    Attention,
    DownConv,
    FourierEmbedding,
    LabelEmbedding,
    PositionalEmbedding,
    ResidualBlock,
    group_norm,
    resample,
)
from trainables.networks.build import build_network
from trainables.networks.dit import DiTBlock, modulated, sine_cosine_positions


def n_parameters(config, resolution=32, channels=3, label_dim=0):
    with torch.device("meta"):
        return sum(
            weight.numel()
            for weight in build_network(config, resolution, channels, label_dim).parameters()
        )


# ---------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(
    ("width", "millions"), [(128, "35.1"), (192, "79.0"), (256, "140.4"), (320, "219.3")]
)
def test_parameters_by_width(width, millions):
    assert f"{n_parameters(DDPMpp(width=width)) / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("depth", "millions"),
    [(2, "35.1"), (4, "55.7"), (6, "76.3"), (8, "96.9"), (10, "117.6"), (12, "138.2")],
)
def test_parameters_by_depth(depth, millions):
    assert f"{n_parameters(DDPMpp(depth=depth)) / 1e6:.1f}" == millions


def test_parameters_of_ncsnpp():
    assert f"{n_parameters(NCSNpp()) / 1e6:.1f}" == "35.8"
    assert n_parameters(
        NCSNpp(time_embedding="positional", skips=(False,) * 9, dropout=0)
    ) == n_parameters(NCSNpp())


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458)])
def test_parameters_of_dit(size, millions):
    """As its paper counts them: latents 4×32×32, patch 2, 1,000 classes and a null class."""
    assert round(n_parameters(DiT(size=size), 32, 4, label_dim=1001) / 1e6) == millions
    assert n_parameters(DiT(size=size, patch=4), 32, 4) == pytest.approx(
        n_parameters(DiT(size=size), 32, 4), rel=0.01
    )


@pytest.mark.parametrize(
    ("config", "per_class"),
    [(DDPMpp(), 128), (DDPMpp(width=64), 64), (NCSNpp(), 256), (DiT(), 384), (MLP(), 256)],
)
def test_parameters_of_labels(config, per_class):
    counts = [n_parameters(config, label_dim=classes) for classes in (0, 10, 50_000)]
    assert counts[2] - counts[1] == 49_990 * per_class
    assert counts[1] - counts[0] == 10 * per_class + per_class, "and the bias of the linear layer"


def test_parameters_do_not_depend_on_what_has_none():
    plain = n_parameters(DDPMpp())
    assert n_parameters(DDPMpp(dropout=0.5)) == plain
    assert n_parameters(DDPMpp(time_embedding="fourier")) == plain
    assert n_parameters(DDPMpp(skips=(False,) * 9)) == plain
    assert n_parameters(DDPMpp(attention=())) < plain
    assert n_parameters(DDPMpp(), channels=1) < plain


# ---------------------------------------------------------------- skip connections

SMALL = DDPMpp(width=8, depth=2)  # three resolutions, nine skips, as in the paper's study
RESIDUAL = NCSNpp(width=8, depth=2)


def skip_inputs(skips, config=SMALL):
    """What the decoder's blocks receive through each of the nine skips, numbered from the input on,
    and the output."""
    network = random_network(config.model_copy(update={"skips": skips}))
    received = []

    def listen(block, inputs):
        received.append(inputs[0])

    for block, takes_skip in zip(network.decoder, network.takes_skip, strict=True):
        if takes_skip:
            block.register_forward_pre_hook(listen)
    torch.manual_seed(1)
    out = network(torch.randn(2, 1, 8, 8), torch.randn(2))
    widths = [8, 16, 16] + [16] * 6
    return [x[:, -width:] for x, width in zip(reversed(received), widths, strict=True)], out


@pytest.mark.parametrize("config", [SMALL, RESIDUAL], ids=lambda config: config.kind)
def test_skips_are_numbered_from_the_input_and_removed_ones_are_zero(config):
    kept, out = skip_inputs(None, config)
    assert [x.shape[-1] for x in kept] == [8, 8, 8, 4, 4, 4, 2, 2, 2], (
        "1–3 at full, 4–6 at half, 7–9 at a quarter resolution"
    )
    assert all(x.abs().max() > 0 for x in kept)
    for removed in range(9):
        received, other = skip_inputs(tuple(i != removed for i in range(9)), config)
        assert [bool(x.any()) for x in received] == [i != removed for i in range(9)]
        assert torch.equal(received[(removed + 1) % 9], kept[(removed + 1) % 9]), (
            "the encoder goes on as before"
        )
        assert other.shape == out.shape
        assert not torch.equal(other, out)


def test_all_flags_set_is_no_mask():
    assert torch.equal(skip_inputs((True,) * 9)[1], skip_inputs(None)[1])


def test_a_removed_skip_passes_no_gradient():
    """Where the middle is cut, the encoder reaches the output through its skips or not at all."""
    gradients = []
    for keep in (True, False):
        network = random_network(SMALL.model_copy(update={"skips": (keep,) * 9}))
        network.middle[0].register_forward_hook(lambda _, __, out: out.detach())
        network(torch.randn(2, 1, 8, 8), torch.randn(2)).sum().backward()
        gradients.append(
            [w.grad is not None and bool(w.grad.any()) for w in network.encoder.parameters()]
        )
        stem = network.stem.weight.grad
        assert (stem is not None and bool(stem.any())) is keep
    assert all(gradients[0])
    assert not any(gradients[1])


# ---------------------------------------------------------------- NCSN++


def test_ncsnpp_adds_the_image_at_every_lower_resolution():
    """The skip after a downsampling is (block + halved image)/√2, and the next lower resolution
    halves that."""
    network, halved, blocks = random_network(RESIDUAL), [], {}
    for layer in network.pyramid.values():
        layer.register_forward_hook(lambda _, inputs, out: halved.append((inputs[0], out)))
    for position, block in enumerate(network.encoder):
        block.register_forward_hook(
            lambda _, __, out, position=position: blocks.update({position: out})
        )
    received = []
    network.encoder[3].register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    network.encoder[6].register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    x = torch.randn(2, 1, 8, 8)
    network(x, torch.randn(2))
    assert torch.equal(halved[0][0], x)
    assert list(network.pyramid) == ["2", "5"]
    for level, position in enumerate((2, 5)):
        assert torch.equal(received[level], (blocks[position] + halved[level][1]) * math.sqrt(0.5))
    assert torch.equal(halved[1][0], received[0])


def test_ncsnpp_filter():
    """[1, 3, 3, 1] against scipy, with zeros outside; a constant stays constant inside."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    down, up = resample(x, "down", (1, 3, 3, 1)), resample(x, "up", (1, 3, 3, 1))
    stuffed = np.zeros((2, 3, 16, 16))
    stuffed[..., ::2, ::2] = x
    for i in range(2):
        for c in range(3):
            # index 0 is the filter's last tap on the first pixel
            full = signal.convolve2d(x[i, c].numpy(), taps)
            np.testing.assert_allclose(down[i, c], full[2:-2:2, 2:-2:2], atol=1e-12)
            np.testing.assert_allclose(
                up[i, c], 4 * signal.convolve2d(stuffed[i, c], taps)[1:-2, 1:-2], atol=1e-12
            )
    for mode, inside in (("down", slice(1, 3)), ("up", slice(1, 15))):
        constant = resample(torch.ones(1, 1, 8, 8), mode, (1, 3, 3, 1))[0, 0, inside, inside]
        torch.testing.assert_close(constant, torch.ones_like(constant))


def test_down_conv_is_a_convolution_and_the_filter():
    """Of the image continued by zeros for ever."""
    torch.manual_seed(0)
    layer = DownConv(2, 5, (1, 3, 3, 1))
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, 8, 8)
    wide = torch.nn.functional.pad(x, (4,) * 4)
    # 16×16, the image in the middle
    convolved = torch.nn.functional.conv2d(wide, layer.weight, layer.bias, padding=1)
    expected = resample(convolved, "down", (1, 3, 3, 1))[..., 2:6, 2:6]
    torch.testing.assert_close(layer(x), expected)


# ---------------------------------------------------------------- labels


def test_looking_up_a_label_is_the_linear_layer_on_one_hot_labels():
    """Value and gradient; and its initial weights have the same distribution."""
    torch.manual_seed(0)
    embed, labels = LabelEmbedding(7, 12), torch.tensor([3, 0, 3, 6])
    torch.nn.init.normal_(embed.bias)
    weight = embed.table.detach().T.clone().requires_grad_()
    one_hot = torch.nn.functional.one_hot(labels, 7).float() * math.sqrt(7)
    product = torch.nn.functional.linear(one_hot, weight, embed.bias.detach())
    torch.testing.assert_close(embed(labels), product)
    upstream = torch.randn(4, 12)
    (embed(labels) * upstream).sum().backward()
    (product * upstream).sum().backward()
    torch.testing.assert_close(embed.table.grad, weight.grad.T)
    big = LabelEmbedding(3000, 128).table.detach()
    bound = math.sqrt(6 / (3000 + 128))
    assert bound * 0.99 < float(big.abs().max()) <= bound
    assert float(big.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


# ---------------------------------------------------------------- DiT


def test_a_fresh_dit_block_is_the_identity():
    block, tokens = DiTBlock(16, 4), torch.randn(2, 5, 16)
    assert torch.equal(block(tokens, torch.randn(2, 16)), tokens)


def test_dit_attention_against_torch():
    torch.manual_seed(0)
    block, tokens = DiTBlock(16, 4), torch.randn(2, 5, 16)
    reference = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    for mine, theirs in ((block.qkv.weight, "in_proj_weight"), (block.qkv.bias, "in_proj_bias")):
        setattr(reference, theirs, torch.nn.Parameter(torch.nn.init.normal_(mine).detach()))
    reference.out_proj.weight, reference.out_proj.bias = block.proj.weight, block.proj.bias
    torch.testing.assert_close(block._attend(tokens), reference(tokens, tokens, tokens)[0])


def test_dit_modulation():
    tokens = torch.randn(2, 5, 16) * 3 + 1
    out = modulated(tokens, torch.full((2, 1, 16), 0.5), torch.ones(2, 1, 16))
    torch.testing.assert_close(out.mean(-1), torch.full((2, 5), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out.std(-1, correction=0), torch.full((2, 5), 2.0), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_dit_tokens_are_patches_and_come_back_to_their_place(patch):
    """With the blocks the identity and no positions, an image patch depends on its own patch
    alone."""
    network = random_network(DiT(width=16, depth=1, heads=2, patch=patch))
    network.blocks = torch.nn.ModuleList()
    x = torch.randn(1, 1, 8, 8)
    moved = x.clone()
    moved[0, 0, 4, 0] += 1
    changed = (network(moved, torch.zeros(1)) - network(x, torch.zeros(1)))[0, 0].abs() > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4 : 4 + patch, :patch] = True
    assert torch.equal(changed, expected)


def test_dit_positions_are_distinct_and_separable():
    positions = sine_cosine_positions(14, 64)
    assert positions.shape == (196, 64)
    assert float(torch.cdist(positions, positions).fill_diagonal_(9).min()) > 0.5
    grid = positions.reshape(14, 14, 64)
    assert torch.equal(grid[3, :, :32], grid[3, :1, :32].expand(14, 32)), "half tells the row"
    assert torch.equal(grid[:, 3, 32:], grid[:1, 3, 32:].expand(14, 32)), "half the column"


# ---------------------------------------------------------------- parts


def test_attention_is_attention():
    """Against a plain implementation: softmax(q·k/√C) over all pixels, in float64."""
    torch.manual_seed(0)
    layer = Attention(8)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(2, 8, 3, 5)
    out = layer(x).detach()
    qkv = layer.qkv(layer.norm(x)).detach().double().numpy().reshape(2, 24, 15)
    for image in range(2):
        q, k, v = qkv[image, :8], qkv[image, 8:16], qkv[image, 16:]
        scores = q.T @ k / math.sqrt(8)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        mixed = v @ (weights / weights.sum(1, keepdims=True)).T
        w, b = (
            p.detach().double().numpy() for p in (layer.proj.weight[:, :, 0, 0], layer.proj.bias)
        )
        np.testing.assert_allclose(out[image].reshape(8, 15), w @ mixed + b[:, None], atol=1e-4)


def test_attention_mixes_all_pixels():
    torch.manual_seed(0)
    layer = Attention(8)
    layer.norm = torch.nn.Identity()  # which would mix them too
    torch.nn.init.normal_(layer.proj.weight)
    x = torch.randn(1, 8, 4, 4)
    moved = x.clone()
    moved[..., 0, 0] += 1
    assert ((layer(moved) - layer(x)).abs().amax(1) > 1e-4).all(), "one pixel reaches every other"
    torch.testing.assert_close(layer(x.flip(3)), layer(x).flip(3)), "and pixels have no order"


def test_attention_is_where_it_is_asked_for():
    def attended(attention):
        network = build_network(DDPMpp(width=4, depth=1, attention=attention), 8, 1)
        return sum(isinstance(module, Attention) for module in network.modules())

    assert attended(()) == 1, "the lowest resolution has it always, in the middle"
    assert attended((8,)) == attended((4,)) == 1 + 1 + 1, (
        "in each encoder block and the last decoder block of a resolution"
    )
    assert attended((8, 4, 2)) == 7
    assert attended((16,)) == 1


@pytest.mark.parametrize("mode", [None, "down", "up"])
@pytest.mark.parametrize("attention", [False, True])
def test_a_fresh_block_passes_its_input_on(mode, attention):
    """At initialization the branch is nearly zero: what comes out is the input, scaled once per
    sum."""
    block = ResidualBlock(8, 8, 16, dropout=0.5, attention=attention, mode=mode)
    if mode is not None:
        torch.nn.init.dirac_(block.skip.weight)
    x = torch.randn(2, 8, 4, 4)
    expected = resample(x, mode) * (0.5 if attention else 0.5**0.5)
    torch.testing.assert_close(block(x, torch.randn(2, 16)), expected, atol=2e-3, rtol=0)


def test_resampling():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(resample(x, "down"), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert torch.equal(resample(x, "up")[0, 0, :2], x[0, 0, 0].repeat_interleave(2).expand(2, 8))
    assert torch.equal(resample(resample(x, "up"), "down"), x)


def test_positional_embedding():
    embed = PositionalEmbedding(8)
    zero = embed(torch.zeros(1))[0]
    assert zero.tolist() == [0] * 4 + [1] * 4
    emb = embed(torch.tensor([1.0]))[0]
    assert emb[0] == pytest.approx(0.8414710)  # sin 1: the highest frequency is 1 …
    assert emb[4] == pytest.approx(0.5403023)
    assert emb[3] == pytest.approx(1e-4, rel=1e-4)  # … and the lowest 1e-4
    assert emb[1] / emb[2] == pytest.approx(10 ** (4 / 3), rel=1e-3)
    assert torch.equal(embed(torch.tensor([3.0, 1.0]))[1], emb)


def test_fourier_embedding():
    torch.manual_seed(0)
    embed = FourierEmbedding(2000)
    assert list(embed.parameters()) == [], "its frequencies are not trained"
    assert float(embed.frequencies.std()) == pytest.approx(16, rel=0.1)
    emb = embed(torch.tensor([0.0, 0.3]))
    assert emb.shape == (2, 2000)
    torch.testing.assert_close(emb[:, :1000] ** 2 + emb[:, 1000:] ** 2, torch.ones(2, 1000))
    assert float(emb[0] @ emb[1]) / 1000 == pytest.approx(0, abs=0.15), (
        "noise levels far apart are orthogonal"
    )


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(4, 1), (8, 2), (12, 3), (128, 32), (256, 32), (384, 32), (132, 22), (960, 32)],
)
def test_group_norm(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_initial_weights_are_glorot_uniform():
    torch.manual_seed(0)
    network = build_network(DDPMpp(width=32, depth=1), 8, 3)
    weight = network.encoder[0].conv0.weight.detach()  # 3×3, 32 -> 64 channels
    bound = math.sqrt(6 / (9 * 32 + 9 * 64))
    assert bound * 0.99 < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert float(network.head.weight.detach().abs().max()) < 1e-5
    assert all(
        not w.any()
        for name, w in network.named_parameters()
        if name.endswith("bias") and "norm" not in name
    )
