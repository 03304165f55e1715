"""A trainer of your own for emm: latent diffusion in plain torch. docs/custom.md shows how to run
it.

The latents are principal components of the training images, where another would load a variational
autoencoder; on them trains a small DDPM (noise prediction, cosine schedule, 1,000 times), sampled
by DDIM. A diffusers pipeline is wrapped the same way: build model, scheduler and optimizer, take
steps, call the pipeline with one generator per seed.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config.identity import derive_seed
from trainables.config.trial import Configuration
from trainables.diffusion.sampling import draw_latents, to_uint8

TIMES = 1000


class LatentDiffusion:
    """See trainables.training.custom.YourTrainer. width, components, lr and steps are `trainer.options`."""

    def __init__(
        self,
        configuration: Configuration,
        images: Tensor,  # [N, C, R, R] uint8
        labels: Tensor | None,  # [N] int64; this model is unconditional
        seed: int,
        device: torch.device,
        width: int = 256,
        components: int = 24,
        lr: float = 2e-3,
        steps: int = 50,
    ) -> None:
        self.batch, self.total = (
            configuration.trainer.batch,
            configuration.trainer.train_images(len(images)),
        )
        self.seed, self.device, self.steps, self.lr, self.image_shape = (
            seed,
            device,
            steps,
            lr,
            images.shape[1:],
        )
        self.codec = PrincipalComponents(images.to(device), components)
        self.latents = self.codec.encode(images.to(device))
        self.network = NoisePredictor(self.latents.shape[1], width).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr)
        self.alpha_bar = (
            (torch.linspace(0, 1, TIMES + 1, device=device) * math.pi / 2)
            .cos()
            .square()
            .clamp(min=1e-4)
        )
        self.images_trained = 0
        self.losses: list[float] = []

    def train_until(self, progress: float) -> None:
        while self.images_trained < progress * self.total:
            self._step()

    def _step(self) -> None:
        torch.manual_seed(
            derive_seed("latent diffusion", self.seed, self.images_trained)
        )  # so that a resumed trial is the same
        clean = self.latents[torch.randint(len(self.latents), (self.batch,), device=self.device)]
        time, noise = (
            torch.randint(1, TIMES + 1, (self.batch,), device=self.device),
            torch.randn_like(clean),
        )
        kept = self.alpha_bar[time][:, None]
        loss = (
            (self.network(kept.sqrt() * clean + (1 - kept).sqrt() * noise, time) - noise)
            .square()
            .mean()
        )
        self.optimizer.param_groups[0]["lr"] = self.lr * (1 - self.images_trained / self.total)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.images_trained += self.batch
        self.losses.append(loss.item())

    def take_loss(self) -> float:
        losses, self.losses = self.losses, []
        return sum(losses) / len(losses)

    @torch.no_grad()
    def sample(self, seeds: list[int], labels: Tensor | None) -> Tensor:
        x = draw_latents(
            seeds, self.latents.shape[1:], self.device
        ).float()  # [len(seeds), components], each from its seed
        times = torch.linspace(TIMES, 0, self.steps + 1).round().long().tolist()
        for time, following in zip(times[:-1], times[1:], strict=True):
            kept, kept_next = self.alpha_bar[time], self.alpha_bar[following]
            noise = self.network(x, torch.full((len(x),), time, device=self.device))
            clean = (x - (1 - kept).sqrt() * noise) / kept.sqrt()
            x = kept_next.sqrt() * clean + (1 - kept_next).sqrt() * noise
        return to_uint8(self.codec.decode(x)).reshape(-1, *self.image_shape)

    def state_dict(self) -> dict[str, Any]:
        parts = {
            name: getattr(self, name).state_dict() for name in ("network", "codec", "optimizer")
        }
        return {**parts, "images_trained": self.images_trained, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("network", "codec", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.images_trained, self.losses = state["images_trained"], list(state["losses"])


class PrincipalComponents(nn.Module):
    """A linear autoencoder: images [N, C, R, R] uint8 <-> latents [N, components] of standard
    deviation 1, as a whole."""

    def __init__(self, images: Tensor, components: int) -> None:
        super().__init__()
        pixels = images.flatten(1) / 127.5 - 1
        basis = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)[2][:components]
        self.register_buffer("mean", pixels.mean(0))
        self.register_buffer("basis", basis)
        self.register_buffer("scale", ((pixels - pixels.mean(0)) @ basis.T).std())

    def encode(self, images: Tensor) -> Tensor:
        return (images.flatten(1) / 127.5 - 1 - self.mean) @ self.basis.T / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        return latents * self.scale @ self.basis + self.mean


class NoisePredictor(nn.Module):
    """x [B, components], time [B] int64 in 1 … TIMES -> the noise in x, [B, components]."""

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.stem, self.head = nn.Linear(components, width), nn.Linear(width, components)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] / TIMES * math.pi * 2.0 ** torch.arange(8, device=x.device)
        embedding, h = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)), self.stem(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + layer(nn.functional.silu(norm(h) + embedding))
        return self.head(h)
