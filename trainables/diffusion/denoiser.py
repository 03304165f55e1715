"""Preconditioning, noise laws and losses: everything between a network and its denoiser D(x; σ).

Formulations are those of Karras et al. 2022 (arXiv 2206.00364), table 1. Images are float in [−1,
1]; σ is the standard deviation of the noise in the same unit.

Flow matching (arXiv 2210.02747) trains a velocity v = ε − x_0 at x_t = (1 − t) x_0 + t ε. With σ =
t / (1 − t) that is a denoiser of x = x_0 + σ ε, for x_t = x / (1 + σ) and x_0 = x_t − t v: the same
samplers and the same optimum apply.
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from trainables.config.diffusion import EDM, VE, VP, Diffusion, Flow
from trainables.config.network import Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.networks.build import build_network
from trainables.networks.optimum import OptimalDenoiser

FLOW_EPSILON = 1e-5  # t stays so far from 0 and 1, where the loss weight and σ are infinite


def vp_sigma(law: VP, t: Tensor) -> Tensor:
    """Noise level at time t in [0, 1]: σ(t) = √(exp(β_d t²/2 + β_min t) − 1)."""
    return torch.expm1(0.5 * law.beta_d * t**2 + law.beta_min * t).sqrt()


def vp_time(law: VP, sigma: Tensor) -> Tensor:
    """The inverse of `vp_sigma`."""
    return (
        (law.beta_min**2 + 2 * law.beta_d * torch.log1p(sigma**2)).sqrt() - law.beta_min
    ) / law.beta_d


def scalings(law: Diffusion, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in and c_noise at noise level sigma [B], each [B] float32."""
    if isinstance(law, EDM):
        total = sigma**2 + law.sigma_data**2
        return (
            law.sigma_data**2 / total,
            sigma * law.sigma_data / total.sqrt(),
            1 / total.sqrt(),
            sigma.log() / 4,
        )
    if isinstance(law, VE):
        return torch.ones_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log()
    if isinstance(
        law, Flow
    ):  # the network sees 1000 t, as in arXiv 2403.03206, so that any time embedding resolves it
        t = sigma / (1 + sigma)
        return 1 / (1 + sigma), -t, 1 / (1 + sigma), 1000 * t
    return (
        torch.ones_like(sigma),
        -sigma,
        1 / (sigma**2 + 1).sqrt(),
        (law.M - 1) * vp_time(law, sigma),
    )


def draw_sigma(law: Diffusion, batch: int, device: torch.device) -> Tensor:
    """Noise levels of a training batch, [batch] float32, from torch's global generator.

    EDM: ln σ normal; VP: t uniform on [ε_t, 1]; VE: ln σ uniform; flow: t uniform, or logit t = ln
    σ normal. Stratified (EDM): one level from each of `batch` equally likely bins, which takes
    variance out of the loss and leaves its expectation as it is.
    """
    u = torch.rand(batch, device=device)
    if isinstance(law, VP):
        return vp_sigma(law, 1 + u * (law.epsilon_t - 1))
    if isinstance(law, VE):
        return law.sigma_min * (law.sigma_max / law.sigma_min) ** u
    if isinstance(law, Flow):
        t = u.clamp(FLOW_EPSILON, 1 - FLOW_EPSILON)
        logit = (
            torch.logit(t)
            if law.times == "uniform"
            else law.t_mean + law.t_std * _normal_quantile(u)
        )
        return logit.exp()
    # bins in random order: images that come back to the same place of a batch get all noise levels
    if law.stratified:
        u = (torch.randperm(batch, device=device) + u) / batch
    return (law.P_mean + law.P_std * _normal_quantile(u)).exp()


def _normal_quantile(u: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * u.clamp(1e-7, 1 - 1e-7) - 1)  # infinite at the ends


def loss_weight(law: Diffusion, sigma: Tensor) -> Tensor:
    """λ(σ), [B]: EDM (σ² + σ_data²)/(σ σ_data)², VP and VE 1/σ², flow 1/t² (the plain loss of the
    velocity)."""
    if isinstance(law, EDM):
        return 1 / sigma.square() + 1 / law.sigma_data**2
    return 1 / sigma.square() if not isinstance(law, Flow) else (1 + 1 / sigma).square()


class Denoiser(nn.Module):
    """D(x; σ) = c_skip x + c_out F(c_in x; c_noise): x [B, C, R, R], sigma [B] -> [B, C, R, R]
    float32 (eq. 7)."""

    def __init__(self, network: nn.Module, law: Diffusion, bf16: bool = False) -> None:
        super().__init__()
        self.network, self.law, self.bf16 = network, law, bf16

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        x, sigma = x.float(), sigma.float()
        c_skip, c_out, c_in, c_noise = scalings(self.law, sigma)
        c_skip, c_out, c_in = (c.reshape(-1, 1, 1, 1) for c in (c_skip, c_out, c_in))
        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            raw = self.network(c_in * x, c_noise, labels)
        denoised: Tensor = c_skip * x + c_out * raw.float()
        return denoised


def draw_noise(law: Diffusion, images: Tensor) -> tuple[Tensor, Tensor]:
    """Noise levels σ [B] and standard normal noise ε of the shape of the images, from torch's
    global generator."""
    return draw_sigma(law, len(images), images.device), torch.randn_like(images)


def denoising_loss(
    denoiser: nn.Module,
    law: Diffusion,
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
    weighted: Tensor = loss_weight(law, sigma).reshape(-1, 1, 1, 1) * error
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
    return Denoiser(
        network,
        configuration.diffusion,
        isinstance(trainer, StandardTrainer) and trainer.precision == "bf16",
    )
