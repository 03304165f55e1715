"""A network of the user's own, checked by one forward and one backward pass."""

import sys
from contextlib import redirect_stdout

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
        with redirect_stdout(sys.stderr):
            network = builder(resolution, channels, label_dim, **config.options)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{where}: it raised {in_a_line(error)} for {resolution=}, {channels=}, {label_dim=}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{where}: it must return a torch.nn.Module, not {type(network).__name__}")
    _check(network, (2, channels, resolution, resolution), label_dim, where)
    return network


@torch.enable_grad()  # a plan builds it without
def _check(network: nn.Module, shape: tuple[int, ...], label_dim: int, where: str) -> None:
    """One forward and one backward pass, as in training. Raises UserError for an exception in them,
    and for what could not be trained."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.1, 0.5])
    labels = torch.tensor([0, label_dim - 1]) if label_dim else None
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    call = f"forward(x {list(shape)}, noise_level [2], labels {'[2]' if label_dim else None})"
    try:
        out = network.train()(x, level, labels)
    except Exception as error:
        raise UserError(f"{where}: {call} raised {in_a_line(error)}") from error
    if not isinstance(out, Tensor) or out.shape != x.shape or not out.is_floating_point():
        got = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{where}: {call} must return floats of the shape of x, not {got}")
    if not bool(out.isfinite().all()):
        raise UserError(f"{where}: {call} returned values that are not finite")
    _check_gradients(network, out, where)
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


def _check_gradients(network: nn.Module, out: Tensor, where: str) -> None:
    """Raises UserError if training would change nothing, or fail in the backward pass."""
    if not any(weight.requires_grad for weight in network.parameters()):
        raise UserError(
            f"{where}: it has no parameter to train; layers in a plain list are not seen, "
            "put them in a torch.nn.ModuleList"
        )
    if not out.requires_grad:
        raise UserError(f"{where}: what it returns does not depend on its parameters")
    try:
        out.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(f"{where}: its backward pass raised {in_a_line(error)}") from error
    network.zero_grad(set_to_none=True)
