"""Between a network and its denoiser D(x; σ): preconditioning, and the loss that it is trained on.

What depends on the law, its class in `trainables.config.diffusion` says. Images are float in [−1,
1]; σ is the standard deviation of the noise in the same unit. Equations are those of Karras et al.
2022 (arXiv 2206.00364).
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from trainables.config.diffusion import Law
from trainables.config.identity import derive_seed, key_of
from trainables.config.network import Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, described
from trainables.networks.build import build_network
from trainables.networks.optimum import OptimalDenoiser


def draw_sigma(law: Law, batch: int, device: torch.device) -> Tensor:
    """Noise levels of a training batch, [batch] float32, from torch's global generator.

    Stratified: one level from each of `batch` equally likely bins, which takes variance out of the
    loss and leaves its expectation as it is.
    """
    u = torch.rand(batch, device=device)
    if law.is_stratified:
        # bins in random order: an image that comes back to the same place of a batch gets all
        # noise levels
        u = (torch.randperm(batch, device=device) + u) / batch
    return law.sigma(u)


class Denoiser(nn.Module):
    """D(x; σ) = c_skip x + c_out F(c_in x; c_noise): x [B, C, R, R], sigma [B] -> [B, C, R, R]
    float32 (eq. 7)."""

    def __init__(self, network: nn.Module, law: Law, bf16: bool = False) -> None:
        super().__init__()
        self.network, self.law, self.bf16 = network, law, bf16

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        x, sigma = x.float(), sigma.float()
        c_skip, c_out, c_in, c_noise = self.law.scalings(sigma)
        c_skip, c_out, c_in = (c.reshape(-1, 1, 1, 1) for c in (c_skip, c_out, c_in))
        is_rounded = self.bf16 and x.device.type != "meta"  # on which a plan counts
        with torch.autocast(x.device.type, torch.bfloat16) if is_rounded else nullcontext():
            raw = self.network(c_in * x, c_noise, labels)
        denoised: Tensor = c_skip * x + c_out * raw.float()
        return denoised


def draw_noise(law: Law, images: Tensor) -> tuple[Tensor, Tensor]:
    """Noise levels σ [B] and standard normal noise ε of the shape of the images, from torch's
    global generator."""
    return draw_sigma(law, len(images), images.device), torch.randn_like(images)


def denoising_loss(
    denoiser: nn.Module,
    law: Law,
    images: Tensor,
    labels: Tensor | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """λ(σ) ‖D(y + σ ε; σ) − y‖², mean over batch and pixels (eq. 8); images y [B, C, R, R] in [−1,
    1] -> scalar float32.

    `noise`: σ and ε, as `draw_noise` draws them if they are not given.
    """
    sigma, epsilon = noise or draw_noise(law, images)
    noisy = images + sigma.reshape(-1, 1, 1, 1) * epsilon
    error = (denoiser(noisy, sigma, labels) - images).square()
    weighted: Tensor = law.weight(sigma).reshape(-1, 1, 1, 1) * error
    return weighted.mean()


def build_denoiser(
    configuration: Configuration, images: Tensor, label_dim: int = 0, labels: Tensor | None = None
) -> nn.Module:
    """The untrained denoiser of a configuration (initialized from torch's global generator), or the
    closed-form optimum.

    `images`: the training subset, [N, C, R, R] float in [−1, 1], and `labels`, [N] int64; only the
    optimum looks at them. `label_dim`: number of distinct labels, 0 if there are none.
    """
    if isinstance(configuration.network, Optimum):
        return OptimalDenoiser(images, labels)
    data = configuration.data
    network = build_network(configuration.network, data.resolution, data.channels, label_dim)
    trainer = configuration.trainer
    is_bf16 = isinstance(trainer, StandardTrainer) and trainer.precision == "bf16"
    return Denoiser(network, configuration.diffusion, is_bf16)


def initial_denoiser(
    configuration: Configuration,
    seed: int,
    images: Tensor,
    label_dim: int = 0,
    labels: Tensor | None = None,
) -> nn.Module:
    """The one that a trial with this seed begins with; seeds torch's global generator. The others
    as in `build_denoiser`."""
    torch.manual_seed(derive_seed("initialization", key_of(described(configuration)), seed))
    return build_denoiser(configuration, images, label_dim, labels)


def network_of(denoiser: nn.Module) -> nn.Module:
    """The network inside; of the closed-form optimum it is itself, which has no weights."""
    return denoiser.network if isinstance(denoiser, Denoiser) else denoiser


def trained_names(network: nn.Module) -> list[str]:
    """Of the weights that training changes, in their order."""
    return [name for name, weight in network.named_parameters() if weight.requires_grad]
