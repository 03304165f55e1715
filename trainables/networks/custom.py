"""A network of the user's own, checked by one forward pass."""

import torch
from torch import Tensor, nn

from trainables.config.code import in_a_line, load_code
from trainables.config.network import CustomNetwork
from trainables.errors import UserError


def build_custom(
    config: CustomNetwork, resolution: int, channels: int, label_dim: int = 0
) -> nn.Module:
    """What builder(resolution, channels, label_dim, **options) returns, on the CPU. Raises
    UserError if it is unusable."""
    where = f"network.builder={config.builder}"
    builder = load_code(config.builder, "network.builder")
    try:
        network = builder(resolution, channels, label_dim, **config.options)
    except Exception as error:
        raise UserError(
            f"{where}: it raised {in_a_line(error)} for {resolution=}, {channels=}, {label_dim=}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{where}: it must return a torch.nn.Module, not {type(network).__name__}")
    _check(network, (2, channels, resolution, resolution), label_dim, where)
    return network


def _check(network: nn.Module, shape: tuple[int, ...], label_dim: int, where: str) -> None:
    """One forward pass, as in training. Raises UserError for an exception in it, and for what could
    not be trained."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.1, 0.5])
    labels = torch.tensor([0, label_dim - 1]) if label_dim else None
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    call = f"forward(x {list(shape)}, noise_level [2], labels {'[2]' if label_dim else None})"
    try:
        with torch.no_grad():
            out = network.train()(x, level, labels)
    except Exception as error:
        raise UserError(f"{where}: {call} raised {in_a_line(error)}") from error
    if not isinstance(out, Tensor) or out.shape != x.shape or not out.is_floating_point():
        got = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{where}: {call} must return floats of the shape of x, not {got}")
    if not bool(out.isfinite().all()):
        raise UserError(f"{where}: {call} returned values that are not finite")
    changed = [
        name
        for name, buffer in network.named_buffers()
        if not torch.equal(buffer, buffers.get(name, buffer))
    ]
    if changed:
        raise UserError(
            f"{where}: its buffer {changed[0]} changes in training, "
            "and only parameters are kept; no BatchNorm"
        )
