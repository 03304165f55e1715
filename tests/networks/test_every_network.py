"""What training, sampling and planning need of every network."""

import pytest
import torch

from tests.kinds import kinds_of
from trainables.config.network import (
    MLP,
    AnyNetwork,
    CustomNetwork,
    DDPMpp,
    DiT,
    NCSNpp,
    Network,
    Optimum,
)
from trainables.errors import UserError
from trainables.networks.build import build_network

SMALL_UNET = {"width": 8, "depth": 2, "multipliers": (1, 2, 2), "attention": (8, 4)}
# one of each kind, small; a new one stands here too
NETWORKS = [
    DDPMpp(**SMALL_UNET),
    DDPMpp(width=4, depth=3, multipliers=(1,)),  # nothing is halved
    NCSNpp(**SMALL_UNET),
    DiT(width=16, depth=2, heads=2),
    MLP(width=64, depth=2, dropout=0.1),
]
OTHERS = {CustomNetwork: "see tests/training/test_custom.py", Optimum: "it is a denoiser"}
LEVELS = torch.tensor([-2.0, 0.1, 900.0])  # the noise inputs of all laws are between these


@pytest.fixture(params=NETWORKS, ids=lambda config: config.kind)
def config(request):
    return request.param


def random_network(config, resolution=8, channels=1, seed=0, label_dim=0):
    """With all weights drawn anew, for at initialization the last convolutions are nearly zero."""
    torch.manual_seed(seed)
    network = build_network(config, resolution, channels, label_dim).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return network


def weights_of(network):
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_every_kind_is_tried():
    assert {type(config) for config in NETWORKS} | OTHERS.keys() == set(kinds_of(Network))


# ---------------------------------------------------------------- construction


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3)])
@pytest.mark.parametrize("label_dim", [0, 5])
def test_it_takes_every_source(config, resolution, channels, label_dim):
    config.check_resolution(resolution)
    network = build_network(config, resolution, channels, label_dim)
    x, labels = torch.randn(3, channels, resolution, resolution), torch.tensor([0, 4, 4])
    out = network(x, LEVELS, labels if label_dim else None)
    assert (out.shape, out.dtype) == (x.shape, torch.float32)
    assert out.abs().max() < 0.1, "nearly zero before training"
    with torch.device("meta"):  # as `emm plan` counts it
        planned = build_network(config, resolution, channels, label_dim)
        planned(x.to("meta"), LEVELS.to("meta"), labels.to("meta") if label_dim else None)
    shapes = {name: weight.shape for name, weight in network.named_parameters()}
    assert {name: weight.shape for name, weight in planned.named_parameters()} == shapes


def test_the_generator_decides_the_weights(config):
    torch.manual_seed(0)
    first, other = (weights_of(build_network(config, 8, 1)) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(weights_of(build_network(config, 8, 1)), first)
    assert not torch.equal(other, first)


def test_a_module_that_cannot_be_found_is_named():
    class Nowhere(AnyNetwork):
        built_by = "trainables.networks.nowhere:Nowhere"

    with pytest.raises(UserError, match=r"network\.built_by=trainables\.networks\.nowhere:Nowhere"):
        build_network(Nowhere(), 8, 1)


# ---------------------------------------------------------------- output


def test_labels_matter_where_there_are_any(config):
    x, level = torch.randn(3, 1, 8, 8), torch.zeros(3)
    plain, labelled = random_network(config), random_network(config, label_dim=3)
    assert torch.equal(plain(x, level, torch.tensor([0, 1, 2])), plain(x, level, None))
    outs = [labelled(x, level, torch.full((3,), label)) for label in range(3)]
    assert min((outs[i] - outs[j]).abs().max() for i, j in ((0, 1), (1, 2), (0, 2))) > 1e-3
    mixed = labelled(x, level, torch.tensor([2, 0, 1]))
    of_its_own = torch.stack([outs[2][0], outs[0][1], outs[1][2]])
    torch.testing.assert_close(mixed, of_its_own, rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other(config):
    network = random_network(config)
    x, level = torch.randn(3, 1, 8, 8), torch.tensor([-1.0, 0.0, 1.0])
    together = network(x, level)
    for i in range(3):
        alone = network(x[i : i + 1], level[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    assert (network(x, level + 0.5) - together).abs().max() > 1e-3, "the noise level matters"


def test_only_training_is_random(config):
    network = random_network(config)
    x, level = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert torch.equal(network(x, level), network(x, level))
    network.train()
    drops_out = getattr(config, "dropout", 0) > 0
    assert torch.equal(network(x, level), network(x, level)) is not drops_out


def test_half_the_precision_gives_nearly_the_same(config):
    """trainer.precision=bf16 runs it under autocast."""
    network = random_network(config)
    x, level = torch.randn(4, 1, 8, 8), torch.randn(4)
    exact = network(x, level)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, level).float()
    assert 0 < (rough - exact).norm() < 0.1 * exact.norm()


# ---------------------------------------------------------------- training


def test_every_weight_matters(config):
    network = random_network(config, label_dim=4)
    network(torch.randn(4, 1, 8, 8), torch.randn(4), torch.arange(4)).square().sum().backward()
    idle = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []


def test_only_parameters_change_in_training(config):
    """Checkpoints and averages hold these alone; what else there is, the seed decides."""
    network, again = random_network(config, seed=3).train(), random_network(config, seed=3)
    network(torch.randn(2, 1, 8, 8), torch.randn(2)).sum().backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 0.01 * weight.grad
        for weight, trained in zip(again.parameters(), network.parameters(), strict=True):
            weight.copy_(trained)
    x, level = torch.randn(2, 1, 8, 8), torch.randn(2)
    assert torch.equal(again(x, level), network.eval()(x, level))
