"""DDPM++ against the parameter counts and the structure that the paper states; its parts against known behaviour."""

import math

import numpy as np
import pytest
import torch

from trainables.config import DDPMpp
from trainables.networks import build_network
from trainables.networks.blocks import Attention, FourierEmbedding, PositionalEmbedding, ResidualBlock, group_norm, resample


def n_parameters(config, resolution=32, channels=3):
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_network(config, resolution, channels).parameters())


def random_network(config, resolution=8, channels=1, seed=0):
    """With all weights drawn anew, for at initialization the last convolutions are nearly zero."""
    torch.manual_seed(seed)
    network = build_network(config, resolution, channels).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return network


# ---------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(("width", "millions"), [(128, "35.1"), (192, "79.0"), (256, "140.4"), (320, "219.3")])
def test_parameters_by_width(width, millions):
    assert f"{n_parameters(DDPMpp(width=width)) / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("depth", "millions"), [(2, "35.1"), (4, "55.7"), (6, "76.3"), (8, "96.9"), (10, "117.6"), (12, "138.2")]
)
def test_parameters_by_depth(depth, millions):
    assert f"{n_parameters(DDPMpp(depth=depth)) / 1e6:.1f}" == millions


def test_parameters_do_not_depend_on_what_has_none():
    plain = n_parameters(DDPMpp())
    assert n_parameters(DDPMpp(dropout=0.5)) == plain
    assert n_parameters(DDPMpp(time_embedding="fourier")) == plain
    assert n_parameters(DDPMpp(skips=(False,) * 9)) == plain
    assert n_parameters(DDPMpp(attention=())) < plain
    assert n_parameters(DDPMpp(), channels=1) < plain


# ---------------------------------------------------------------- the whole network


@pytest.mark.parametrize("resolution", [8, 16, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_the_shape_of_the_input(resolution, channels):
    network = build_network(DDPMpp(width=4, depth=1), resolution, channels)
    x = torch.randn(2, channels, resolution, resolution)
    out = network(x, torch.tensor([0.1, 0.2]))
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.abs().max() < 0.1, "nearly zero before training"


@pytest.mark.parametrize("config", [DDPMpp(width=8, depth=1, multipliers=(1, 2)), DDPMpp(width=4, depth=3, multipliers=(1,))])
def test_images_of_a_batch_do_not_see_each_other(config):
    network = random_network(config)
    x, level = torch.randn(3, 1, 8, 8), torch.tensor([-1.0, 0.0, 1.0])
    together = network(x, level)
    for i in range(3):
        torch.testing.assert_close(network(x[i : i + 1], level[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)
    assert (network(x, level + 0.5) - together).abs().max() > 1e-3, "the noise level matters"


def test_every_weight_matters():
    network = random_network(DDPMpp(width=8, depth=2, attention=(8, 4), multipliers=(1, 2, 2)))
    network(torch.randn(4, 1, 8, 8), torch.randn(4)).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_dropout_only_in_training():
    network = random_network(DDPMpp(width=4, depth=1, multipliers=(1,), dropout=0.3))
    x, level = torch.randn(1, 1, 8, 8), torch.zeros(1)
    assert torch.equal(network(x, level), network(x, level))
    network.train()
    assert not torch.equal(network(x, level), network(x, level))


def test_same_seed_same_network():
    first, again, other = (random_network(DDPMpp(width=4, depth=1), seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------- skip connections

SMALL = DDPMpp(width=8, depth=2)  # three resolutions, nine skips, as in the paper's study


def skip_inputs(skips):
    """What the decoder's blocks receive through each of the nine skips, numbered from the input on, and the output."""
    network = random_network(SMALL.model_copy(update={"skips": skips}))
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


def test_skips_are_numbered_from_the_input_and_removed_ones_are_zero():
    kept, out = skip_inputs(None)
    assert [x.shape[-1] for x in kept] == [8, 8, 8, 4, 4, 4, 2, 2, 2], "1–3 at full, 4–6 at half, 7–9 at a quarter resolution"
    assert all(x.abs().max() > 0 for x in kept)
    for removed in range(9):
        received, other = skip_inputs(tuple(i != removed for i in range(9)))
        assert [bool(x.any()) for x in received] == [i != removed for i in range(9)]
        assert torch.equal(received[(removed + 1) % 9], kept[(removed + 1) % 9]), "the encoder goes on as before"
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
        gradients.append([w.grad is not None and bool(w.grad.any()) for w in network.encoder.parameters()])
        stem = network.stem.weight.grad
        assert (stem is not None and bool(stem.any())) is keep
    assert all(gradients[0])
    assert not any(gradients[1])


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
        w, b = (p.detach().double().numpy() for p in (layer.proj.weight[:, :, 0, 0], layer.proj.bias))
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
    assert attended((8,)) == attended((4,)) == 1 + 1 + 1, "in each encoder block and the last decoder block of a resolution"
    assert attended((8, 4, 2)) == 7
    assert attended((16,)) == 1


@pytest.mark.parametrize("mode", [None, "down", "up"])
@pytest.mark.parametrize("attention", [False, True])
def test_a_fresh_block_passes_its_input_on(mode, attention):
    """At initialization the branch is nearly zero: what comes out is the input, scaled once per sum."""
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
    assert float(emb[0] @ emb[1]) / 1000 == pytest.approx(0, abs=0.15), "noise levels far apart are orthogonal"


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 1), (8, 2), (12, 3), (128, 32), (256, 32), (384, 32), (132, 22), (960, 32)]
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
    assert all(not w.any() for name, w in network.named_parameters() if name.endswith("bias") and "norm" not in name)
