"""The closed-form minimizer of the denoising loss: what a network without any limits would
learn."""

import torch
from torch import Tensor, nn


class OptimalDenoiser(nn.Module):
    """D*(x; σ) = Σ_i softmax_i(−‖x − y_i‖² / 2σ²) y_i over the training images y_i (Karras et al.
    2022, eq. 57).

    Images [N, C, R, R] in [−1, 1]; x [B, C, R, R] float, sigma [B] float -> [B, C, R, R] of x's
    dtype. Its samples are copies of training images, which makes it the check of sampler and
    metric, and the ceiling of R_mem at its N. With labels [N] int64, the softmax of a label is over
    its own images (over all, for a label that has none).
    """

    images: Tensor
    labels: Tensor | None

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("images", images.flatten(1), persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self.images.to(x.dtype)
        # ‖x‖² is the same for every image and drops out of the softmax
        scores = x.flatten(1) @ images.T - 0.5 * images.square().sum(1)
        if labels is not None and self.labels is not None:
            own = labels[:, None] == self.labels
            scores = scores.masked_fill(~own & own.any(1, keepdim=True), -torch.inf)
        weights = torch.softmax(scores / sigma.to(x.dtype).reshape(-1, 1).square(), dim=1)
        return (weights @ images).reshape(x.shape)
