"""A network that starts from weights that were trained before, on other images, and the space that
asks what that changes. From this directory:

    emm trial digits --config base --n 4000 --set network.width=8 --set trainer.length=1200 \\
        --set data.kind=mnist5k --set data.resolution=8 --out results/pretrained
    emm run warm_start.py --targets .5 --out DIR
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from trainables.config.network import DDPMpp
from trainables.networks.build import build_network

HERE = Path(__file__).parent
NETWORK = {"width": 8, "depth": 1, "multipliers": (1, 2), "attention": (), "dropout": 0.0}


def pretrained(resolution: int, channels: int, label_dim: int, directory: str) -> nn.Module:
    """The builder; `directory` is what `emm trial --out` wrote."""
    network = build_network(DDPMpp(**NETWORK), resolution, channels, label_dim)
    (weights,) = Path(directory).glob("trials/*/weights.safetensors")
    network.load_state_dict(load_file(weights))
    return network


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
                "network.options.directory": str(HERE / "results/pretrained"),
            },
        }
    },
    "search": {"n_low": 8, "n_high": 256, "precision": 0.15, "max_trials": 16},
}
