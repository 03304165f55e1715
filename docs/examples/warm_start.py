"""A network that starts from weights that were trained before, on other images, and the space that
asks what that changes. From this directory:

    emm trial digits --config base --n 4000 --set network.width=8 --set trainer.length=1200 \\
        --set data.kind=mnist5k --set data.resolution=8 --out results/pretrained
    emm run warm_start.py --targets .5 --effort thorough --set search.max_trials=40 --out DIR
"""

import hashlib
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from trainables.config.network import DDPMpp
from trainables.networks.build import build_network

HERE = Path(__file__).resolve().parent
NETWORK = {"width": 8, "depth": 1, "multipliers": (1, 2), "attention": (), "dropout": 0.0}


def weights_in(directory: str) -> Path:
    """Of the one trial there, in what `emm trial --out` wrote beside this file."""
    found = list((HERE / directory).glob("trials/*/weights.safetensors"))
    if len(found) != 1:
        raise ValueError(f"{directory} has {len(found)} models; one is needed, see above")
    return found[0]


def pretrained(resolution: int, channels: int, label_dim: int, directory: str) -> nn.Module:
    """The builder."""
    network = build_network(DDPMpp(**NETWORK), resolution, channels, label_dim)
    network.load_state_dict(load_file(weights_in(directory)))
    return network


WEIGHTS = "results/pretrained"
SPACE = {
    "question": "Does a model that was trained on other images before memorize more training images?",
    "base": "digits",
    "settings": {"network.width": 8},
    "vary": {
        "start": {
            "scratch": {},
            "pretrained": {
                "network.kind": "custom",
                "network.builder": "warm_start:pretrained",
                "network.options.directory": WEIGHTS,
                # other weights are another configuration
                "network.version": hashlib.sha256(weights_in(WEIGHTS).read_bytes()).hexdigest()[
                    :16
                ],
            },
        }
    },
    "search": {"n_low": 8, "n_high": 256, "precision": 0.15, "max_trials": 16},
}
