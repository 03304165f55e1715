"""How R_mem of a trained network is measured."""

import json
import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainables.config.code import Builder, BuilderOptions, Version
from trainables.config.identity import IGNORED, Frozen

# The protocol of Gu et al. 2023: a snapshot every 2.5 M images, each measured on the same 10,000
# latents; R_mem is the maximum.
PAPER_SNAPSHOT_IMAGES = 2_500_000

PAPER_PROTOCOL: dict[str, Any] = {
    "n_samples": 10_000, "n_selection": 10_000, "snapshots": None, "logit_se": 0.0, "accept": None
}  # fmt: skip

AT_ONCE = 500  # images: more are generated no faster, on any device

# its fields that say with what other eye the final samples are looked at
FEATURES = ("features", "features_options", "features_version", "features_rule")

WILSON_Z2 = 3.841458820694124  # square of the normal quantile .975


class Measurement(Frozen):
    """How R_mem of a trained network is measured."""

    protocol: Literal["own", "paper"] = Field(
        "own",
        description="paper: the first images of every class for every seed, latents 0 … 9,999 for "
        "all, maximum over snapshots, labels drawn from all C alike, also from those that no "
        "training image has",
    )
    n_samples: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="images generated for R_mem, with fresh latents, at most",
    )
    logit_se: float = Field(
        0.0,
        ge=0,
        description="enough images once logit R_mem has this standard error; "
        "0: always n_samples of them",
    )
    accept: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="end a trial at a snapshot whose R_mem is above this with 97.5 %; null: never",
    )
    n_selection: int = Field(
        500, ge=1, description="images generated at each snapshot, to choose the best one"
    )
    snapshots: int | None = Field(
        8,
        ge=2,
        le=1000,
        multiple_of=2,
        description="snapshots per trial, evenly spaced, whatever N is; null: protocol=paper",
    )
    sampler: Literal["heun", "euler"] = Field(
        "heun", description="ODE sampler: second or first order"
    )
    sampler_steps: int = Field(
        18, ge=2, le=1000, description="steps of the sampler (network calls: Heun 2·steps − 1)"
    )
    sigma_min: float = Field(0.002, gt=0, description="lowest noise level of the sampler")
    sigma_max: float = Field(80.0, gt=0, description="highest noise level of the sampler")
    rho: float = Field(7.0, gt=0, description="time step exponent of the sampler")
    k: float = Field(1 / 3, gt=0, lt=1, description="a sample is memorized if d1 < k·d2")
    features: Builder | None = Field(
        None,
        description="package.module:function that gives images their features, in which copies are "
        "looked for beside those in pixels; see docs/features.md",
    )
    features_options: BuilderOptions = Field({}, description="keyword arguments of the function")
    features_version: Version = ""
    features_rule: Literal["ratio", "distance"] = Field(
        "ratio",
        description="what makes a copy in features: a ratio d1 / d2, or a distance d1, that only 1 % "
        "of held-out images fall short of",
    )
    judge: Literal["pixels", "features"] = Field(
        "pixels",
        description="in which R_mem is counted: by it the search chooses N, a trial its best snapshot, "
        "and early accept",
    )
    pair: bool = Field(
        False,
        description="train a second model on the N images that come next, and compare what both "
        "draw from the same latents",
    )
    batch: int | None = Field(
        None,
        ge=1,
        description="images generated at once; null: 500, or as many as fit into memory",
        json_schema_extra=IGNORED,
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_protocol(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("protocol") != "paper":
            return values
        for name, value in PAPER_PROTOCOL.items():
            default = cls.model_fields[name].default
            given = values.get(name, default)
            if given not in (default, value):
                needed = f"{name}={json.dumps(value)}"
                raise ValueError(
                    f"protocol=paper needs {needed}, not {given!r}; set it so or leave it out"
                )
        return {**values, **PAPER_PROTOCOL}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be below sigma_max")
        if self.snapshots is None and self.protocol == "own":
            raise ValueError("snapshots must be a number unless protocol=paper")
        asked = self.features_options or self.features_version or self.features_rule != "ratio"
        if asked and self.features is None:
            raise ValueError("features must name a function where more is said of it")
        if self.judge == "features" and self.features is None:
            raise ValueError("judge=features needs features, the function that gives images theirs")
        return self

    @property
    def at_once(self) -> int:
        """Images drawn in one go at most."""
        return self.batch or AT_ONCE

    @property
    def n_selection_to_accept(self) -> int:
        """Fewest images of a snapshot that can end a trial early: if all of `n` are copies, 97.5 %
        are sure of n / (n + z²).

        That is Wilson's bound (see `trainables.measure.r_mem.r_mem_interval`), with z² = 3.84; 0
        without `accept`.
        """
        if self.accept is None:
            return 0
        return math.floor(WILSON_Z2 * self.accept / (1 - self.accept)) + 1

    @property
    def network_calls(self) -> int:
        """That generate one image."""
        return self.sampler_steps if self.sampler == "euler" else 2 * self.sampler_steps - 1

    def snapshots_of(self, images: int) -> int:
        """Number of snapshots of a training that sees `images` images."""
        return self.snapshots or max(1, -(-images // PAPER_SNAPSHOT_IMAGES))

    def due(self, number: int, images: int) -> float:
        """Share of such a training after which snapshot `number` (1, 2 …) is taken."""
        if self.snapshots:
            return min(1.0, number / self.snapshots)
        return min(1.0, number * PAPER_SNAPSHOT_IMAGES / max(images, 1))

    def half(self, images: int) -> int | None:
        """Number of the snapshot after exactly half of such a training; None if there is none."""
        number = self.snapshots_of(images) // 2
        return number if self.due(number, images) == 0.5 else None
