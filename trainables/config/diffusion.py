"""Diffusion laws: preconditioning, noise law and loss."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config.identity import Frozen


class EDM(Frozen):
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


class VP(Frozen):
    """Variance preserving: Song et al. 2021 in the notation of arXiv 2206.00364, table 1, column
    VP."""

    kind: Literal["vp"] = "vp"
    beta_d: float = Field(19.9, gt=0, description="extent of the noise level schedule")
    beta_min: float = Field(0.1, gt=0, description="initial slope of the noise level schedule")
    epsilon_t: float = Field(1e-5, gt=0, lt=1, description="smallest time in training")
    M: int = Field(1000, ge=2, description="number of time steps of the network's noise input")


class VE(Frozen):
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


class Flow(Frozen):
    """Flow matching on straight paths x_t = (1 − t) x_0 + t ε with velocity prediction (arXiv
    2210.02747, 2209.03003)."""

    kind: Literal["flow"] = "flow"
    times: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="law of t in training; logit_normal as in arXiv 2403.03206"
    )
    t_mean: float = Field(0.0, description="mean of logit t, if that is normal")
    t_std: float = Field(1.0, gt=0, description="standard deviation of logit t, if that is normal")


Diffusion = Annotated[EDM | VP | VE | Flow, Field(discriminator="kind")]
