"""Weights side by side in one piece of memory, and an optimizer of them."""

import pytest
import torch

from tests.training.test_trainer import CPU, TINY, equal, images
from trainables.config.fields import with_fields
from trainables.training.trainer import Trainer
from trainables.training.vectors import Vectors

SHAPES = [(3, 5), (4, 2, 3, 3), (7,), (), (6, 2, 1, 1)]


def some_tensors(seed=0):
    """One with channels last, and one of another dtype."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator) for shape in SHAPES]
    tensors[1] = tensors[1].to(memory_format=torch.channels_last)
    tensors[2] = tensors[2].double()
    return tensors


def test_vectors_hold_the_tensors_in_their_layouts():
    tensors = some_tensors()
    vectors = Vectors(tensors)
    assert equal(vectors.views, tensors)
    assert [view.stride() for view in vectors.views] == [tensor.stride() for tensor in tensors]
    assert [(len(v), v.dtype) for v in vectors.vectors] == [
        (15 + 72 + 1 + 12, torch.float32),
        (7, torch.float64),
    ]
    vectors.vectors[0].fill_(2.0)
    vectors.vectors[1].fill_(3.0)
    filled = [3.0 if view.dtype == torch.float64 else 2.0 for view in vectors.views]
    assert [set(view.flatten().tolist()) for view in vectors.views] == [{v} for v in filled]
    vectors.views[1][2, 1, 0, 2] = 9.0
    assert (vectors.vectors[0] == 9).sum() == 1


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_an_optimizer_of_vectors_is_one_of_the_tensors(kind):
    """Torch's own on the single tensors: the same weights, and the same state, which either takes
    over."""
    options = {
        "adam": (torch.optim.Adam, {"betas": (0.8, 0.9), "weight_decay": 0.1}),
        "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
        "sgd": (torch.optim.SGD, {"momentum": 0.7}),
    }
    build, settings = options[kind]
    vectors = Vectors(some_tensors())
    tensors = some_tensors()
    both = build(vectors.vectors, lr=0.1, **settings), build(tensors, lr=0.1, **settings)

    def step(seed, ours, theirs):
        gradients = some_tensors(seed)
        for vector, gradient in zip(vectors.vectors, Vectors(gradients).vectors, strict=True):
            vector.grad = gradient
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient
        ours.step()
        theirs.step()
        for view, tensor in zip(vectors.views, tensors, strict=True):
            torch.testing.assert_close(view, tensor)

    step(1, *both)
    step(2, *both)
    ours, theirs = vectors.state_of_each(both[0]), both[1].state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, of_one in theirs["state"].items():
        assert ours["state"][number].keys() == of_one.keys()
        for name, value in of_one.items():
            torch.testing.assert_close(ours["state"][number][name], value)
    later = build(vectors.vectors, lr=9.0), build(tensors, lr=9.0)
    vectors.load_state_of_each(later[0], theirs)
    later[1].load_state_dict(ours)
    step(3, *later)


def test_what_never_had_a_gradient_has_no_state_yet():
    """Torch's optimizer keeps nothing of it, and so did checkpoints of single weights."""
    tensors = some_tensors()
    single = torch.optim.Adam(tensors, lr=0.1)
    for tensor in tensors[1:]:
        tensor.grad = torch.ones_like(tensor)
    single.step()
    vectors = Vectors(tensors)
    ours = torch.optim.Adam(vectors.vectors, lr=0.1)
    vectors.load_state_of_each(ours, single.state_dict())
    state = vectors.state_of_each(ours)["state"]
    assert state[0]["exp_avg"].tolist() == torch.zeros(3, 5).tolist()
    torch.testing.assert_close(state[1]["exp_avg"], torch.full((4, 2, 3, 3), 0.1))
    assert float(state[2]["step"]) == 1


class Frozen(torch.nn.Module):
    """Two layers, of which the first one is not trained, and a weight that is not used."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 3, 1), torch.nn.Conv2d(3, 1, 1)
        self.first.requires_grad_(False)
        self.unused = torch.nn.Parameter(torch.ones(2))

    def forward(self, x, noise_level, labels):
        return self.second(self.first(x))


def frozen_network(resolution, channels, label_dim):
    return Frozen()


def test_frozen_weights_stay_and_unused_ones_only_decay():
    network = {"network.kind": "custom", "network.builder": f"{__name__}:frozen_network"}
    configuration = with_fields(
        TINY, network | {"trainer.weight_decay": 0.1, "trainer.optimizer": "adamw"}
    )
    trainer = Trainer(configuration, images(6), 0, CPU)
    network = trainer.denoiser.network
    before = [part.weight.detach().clone() for part in (network.first, network.second)]
    trainer.train_until(1.0)
    assert torch.equal(network.first.weight, before[0])
    assert not torch.equal(network.second.weight, before[1])
    steps = 5  # of 18 images, four at a time
    decayed = torch.full((2,), (1 - 1e-3 * 0.1) ** steps)
    torch.testing.assert_close(network.unused.detach(), decayed)
