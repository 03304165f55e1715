"""A denoiser by kernels that torch.compile makes for it: fused, for one size of batch, and on a GPU
launched as one CUDA graph."""

import logging
import warnings

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class CompiledDenoiser(nn.Module):
    """D(x; σ) of `denoiser`, with its weights, equal up to rounding and to the masks of dropout.

    Kernels are made for `batch` images: fewer are filled up to so many, more take the plain way. A
    process has one of these at a time: whoever makes another drops the kernels of the one before.
    """

    def __init__(self, denoiser: nn.Module, batch: int, graphs: bool) -> None:
        super().__init__()
        torch.compiler.reset()  # it keeps but a few kinds, and every trial's network counts as one
        self.denoiser, self.batch = denoiser, batch
        mode = "reduce-overhead" if graphs else "default"
        self.kernels = torch.compile(denoiser, dynamic=False, mode=mode)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `trainables.diffusion.denoiser.Denoiser`."""
        size = len(x)
        if size > self.batch:
            return self.denoiser(x, sigma, labels)  # type: ignore[no-any-return]
        x, sigma = _filled(x.float(), self.batch), _filled(sigma.float(), self.batch)
        labels = None if labels is None else _filled(labels, self.batch)
        denoised: Tensor = self.kernels(x, sigma, labels)
        return denoised[:size]


def _filled(rows: Tensor, size: int) -> Tensor:
    """[n, …] → [size, …], with copies of the first row."""
    missing = size - len(rows)
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows


def compiled(denoiser: nn.Module, images: Tensor, labels: Tensor | None) -> nn.Module:
    """`denoiser` compiled for batches of the size of `images` [B, C, R, R] float and labels [B], in
    training and evaluation; itself, after one line in the log, where that can't be done."""
    graphs = images.device.type == "cuda"
    try:
        with warnings.catch_warnings():
            # that float32 is not TF32, which is what an identity says
            warnings.filterwarnings("ignore", "TensorFloat32")
            return _tried_out(CompiledDenoiser(denoiser, len(images), graphs), images, labels)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # of a compiler, whatever it is: it can be done without
        reason = str(error).strip().partition("\n")[0]
        log.warning("not compiled, and so slower (%s: %s)", type(error).__name__, reason)
        return denoiser


def _tried_out(faster: CompiledDenoiser, images: Tensor, labels: Tensor | None) -> CompiledDenoiser:
    """It compiles when it is called: forward and backward, and forward alone."""
    sigma = torch.ones(len(images), device=images.device)
    try:
        for _ in range(3):  # with graphs the second call records one, and the third runs it
            faster.train()(images, sigma, labels).square().mean().backward()
            faster.zero_grad(set_to_none=True)
            with torch.no_grad():
                faster.eval()(images, sigma, labels)
    finally:
        faster.zero_grad(set_to_none=True)
    return faster
