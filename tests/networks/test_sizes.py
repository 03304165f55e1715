"""Sizes by arithmetic are what torch counts, of every network and every option that changes one."""

import subprocess
import sys

import pytest

from search_spaces.recipes import DIGITS
from search_spaces.table import SPACES
from sweep.run.measured import counted_size
from trainables.config.labels import NoLabels, TrueLabels, UniqueLabels
from trainables.config.network import MLP, CustomNetwork, DDPMpp, DiT, NCSNpp, Optimum
from trainables.data.labels import planned_label_dim
from trainables.networks.sizes import size_of_network

UNETS = [
    {"depth": 1, "multipliers": (1, 2), "attention": ()},
    {"depth": 3, "multipliers": (1, 3, 2), "width": 12, "attention": (8, 2)},
    {"depth": 1, "multipliers": (2,), "width": 8, "time_embedding": "fourier"},
    {"depth": 1, "multipliers": (2, 1), "time_embedding": "positional", "attention": (4,)},
    {"depth": 1, "multipliers": (1, 1), "width": 16, "skips": (True, False, True, False)},
]
NETWORKS = [
    *(kind(**fields) for fields in UNETS for kind in (DDPMpp, NCSNpp)),
    *(DiT(), DiT(size="B", patch=4), DiT(width=32, depth=3, heads=4, patch=1)),
    *(MLP(), MLP(width=20, depth=2, dropout=0.5)),
]


def assert_as_torch_counts(configuration):
    data, label_dim = configuration.data, planned_label_dim(configuration, 20)
    size = size_of_network(configuration.network, data.resolution, data.channels, label_dim)
    assert size == counted_size(configuration, label_dim)


@pytest.mark.parametrize("labels", [NoLabels(), TrueLabels(), UniqueLabels()], ids=repr)
@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_a_size_is_what_torch_counts(network, labels):
    assert_as_torch_counts(DIGITS.model_copy(update={"network": network, "labels": labels}))


@pytest.mark.parametrize("name", SPACES)
def test_the_sizes_of_a_space_are_what_torch_counts(name):
    """Of its first and its last configuration."""
    configurations = SPACES[name].configurations
    for named in (configurations[0], configurations[-1]):
        if size_of_network(named.configuration.network, 8, 1) is not None:
            assert_as_torch_counts(named.configuration)


def test_what_arithmetic_does_not_know_is_left_to_torch():
    assert size_of_network(Optimum(), 8, 1) is None
    assert size_of_network(CustomNetwork(builder="a:b"), 8, 1) is None


def test_a_plan_imports_no_torch():
    code = (
        "import sys\nfrom sweep.cli.main import main\n"
        "try: main(['plan', 'cifar10-width'])\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
