"""Diffusion laws: which noise levels are trained at, how a network is made a denoiser, and how the
loss is weighted.

Formulations are those of Karras et al. 2022 (arXiv 2206.00364), table 1. Images are in [−1, 1]; σ
is the standard deviation of the noise in the same unit. The formulas are methods of torch's
tensors, on any device and in their own precision, so that nothing here imports torch.
"""

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config.identity import Frozen

if TYPE_CHECKING:
    from torch import Tensor

FLOW_EPSILON = 1e-5  # t stays so far from 0 and 1, where the loss weight and σ are infinite


class Law(Frozen):
    """What every law must say. A new one is a class here, and its name in `Diffusion`."""

    @abstractmethod
    def sigma(self, u: "Tensor") -> "Tensor":
        """The noise level of training at the quantile u in [0, 1]: positive and finite, of the
        shape of u; monotone in u."""

    @abstractmethod
    def scalings(self, sigma: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """c_skip, c_out, c_in and c_noise of D(x; σ) = c_skip x + c_out F(c_in x; c_noise) (eq. 7),
        each of the shape of sigma. c_noise grows with σ."""

    @abstractmethod
    def weight(self, sigma: "Tensor") -> "Tensor":
        """λ(σ), the weight of the squared error of D in the loss (eq. 8), of the shape of sigma."""

    @property
    def is_stratified(self) -> bool:
        """Whether the quantiles of a batch are spread evenly, one in each of as many equal bins."""
        return False


class EDM(Law):
    """Preconditioning, noise law and loss of Karras et al. 2022 (arXiv 2206.00364), table 1, column
    EDM."""

    kind: Literal["edm"] = "edm"
    sigma_data: float = Field(
        0.5, gt=0, description="standard deviation of the data, pixels in [-1, 1]"
    )
    P_mean: float = Field(-1.2, description="mean of ln sigma in training")
    P_std: float = Field(1.2, gt=0, description="standard deviation of ln sigma in training")
    stratified: bool = Field(
        False, description="draw the noise levels of a batch at evenly spaced quantiles"
    )

    def sigma(self, u: "Tensor") -> "Tensor":
        """ln σ is normal."""
        return (self.P_mean + self.P_std * _normal_quantile(u)).exp()

    def scalings(self, sigma: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """What the network sees and what it predicts have variance 1 where the data have variance
        σ_data²."""
        total = sigma**2 + self.sigma_data**2
        return (
            self.sigma_data**2 / total,
            sigma * self.sigma_data / total.sqrt(),
            1 / total.sqrt(),
            sigma.log() / 4,
        )

    def weight(self, sigma: "Tensor") -> "Tensor":
        """(σ² + σ_data²) / (σ σ_data)²."""
        return 1 / sigma.square() + 1 / self.sigma_data**2

    @property
    def is_stratified(self) -> bool:
        return self.stratified


class VP(Law):
    """Variance preserving: Song et al. 2021 in the notation of arXiv 2206.00364, table 1, column
    VP."""

    kind: Literal["vp"] = "vp"
    beta_d: float = Field(19.9, gt=0, description="extent of the noise level schedule")
    beta_min: float = Field(0.1, gt=0, description="initial slope of the noise level schedule")
    epsilon_t: float = Field(1e-5, gt=0, lt=1, description="smallest time in training")
    M: int = Field(1000, ge=2, description="number of time steps of the network's noise input")

    def sigma(self, u: "Tensor") -> "Tensor":
        """Time is uniform on [ε_t, 1], and falls with u."""
        return self.sigma_at(1 + u * (self.epsilon_t - 1))

    def scalings(self, sigma: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """The network predicts the noise."""
        return (
            sigma.new_ones(sigma.shape),
            -sigma,
            1 / (sigma**2 + 1).sqrt(),
            (self.M - 1) * self.time_of(sigma),
        )

    def weight(self, sigma: "Tensor") -> "Tensor":
        """1 / σ²: the plain loss of the noise."""
        return 1 / sigma.square()

    def sigma_at(self, t: "Tensor") -> "Tensor":
        """Noise level at time t in [0, 1]: σ(t) = √(exp(β_d t²/2 + β_min t) − 1)."""
        return (0.5 * self.beta_d * t**2 + self.beta_min * t).expm1().sqrt()

    def time_of(self, sigma: "Tensor") -> "Tensor":
        """The inverse of `sigma_at`."""
        root = (self.beta_min**2 + 2 * self.beta_d * (sigma**2).log1p()).sqrt()
        return (root - self.beta_min) / self.beta_d


class VE(Law):
    """Variance exploding: Song et al. 2021 in the notation of arXiv 2206.00364, table 1, column VE;
    ln sigma uniform."""

    kind: Literal["ve"] = "ve"
    sigma_min: float = Field(0.02, gt=0, description="lowest noise level in training")
    sigma_max: float = Field(100.0, gt=0, description="highest noise level in training")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be below sigma_max")
        return self

    def sigma(self, u: "Tensor") -> "Tensor":
        """ln σ is uniform."""
        levels: Tensor = self.sigma_min * (self.sigma_max / self.sigma_min) ** u
        return levels

    def scalings(self, sigma: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """The network predicts the negative noise, and sees the noisy image as it is."""
        ones = sigma.new_ones(sigma.shape)
        return ones, sigma, ones, (sigma / 2).log()

    def weight(self, sigma: "Tensor") -> "Tensor":
        """1 / σ²: the plain loss of the noise."""
        return 1 / sigma.square()


class Flow(Law):
    """Flow matching on straight paths x_t = (1 − t) x_0 + t ε with velocity prediction (arXiv
    2210.02747, 2209.03003).

    The network is trained to give v = ε − x_0 at x_t. With σ = t / (1 − t) that is a denoiser of x
    = x_0 + σ ε, for x_t = x / (1 + σ) and x_0 = x_t − t v: the same samplers and the same optimum
    apply.
    """

    kind: Literal["flow"] = "flow"
    times: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="law of t in training; logit_normal as in arXiv 2403.03206"
    )
    t_mean: float = Field(0.0, description="mean of logit t, if that is normal")
    t_std: float = Field(1.0, gt=0, description="standard deviation of logit t, if that is normal")

    def sigma(self, u: "Tensor") -> "Tensor":
        """t is uniform, or logit t = ln σ normal."""
        if self.times == "uniform":
            return u.clamp(FLOW_EPSILON, 1 - FLOW_EPSILON).logit().exp()
        return (self.t_mean + self.t_std * _normal_quantile(u)).exp()

    def scalings(self, sigma: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """The network sees 1000 t, as in arXiv 2403.03206, so that any time embedding resolves
        it."""
        t = sigma / (1 + sigma)
        shrunk = 1 / (1 + sigma)
        return shrunk, -t, shrunk, 1000 * t

    def weight(self, sigma: "Tensor") -> "Tensor":
        """1 / t²: the plain loss of the velocity."""
        return (1 + 1 / sigma).square()


def _normal_quantile(u: "Tensor") -> "Tensor":
    """Of the standard normal distribution, kept off the ends, where it is infinite."""
    return math.sqrt(2) * (2 * u.clamp(1e-7, 1 - 1e-7) - 1).erfinv()


Diffusion = Annotated[EDM | VP | VE | Flow, Field(discriminator="kind")]
