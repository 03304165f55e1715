"""A configuration, and a trial of it: what both are identified by."""

from typing import Any, Self

from pydantic import Field, model_validator

from trainables.config.data import Data
from trainables.config.diffusion import Diffusion
from trainables.config.identity import NUMERICS, Frozen, identity, key_of
from trainables.config.labels import Labels, NoLabels
from trainables.config.measurement import Measurement
from trainables.config.network import Network
from trainables.config.training import Trainer

MOST_IMAGES = 10**9  # that a range of N may reach


class Configuration(Frozen):
    """Everything that defines (P, M, T) except the number N of training images."""

    data: Data
    labels: Labels = NoLabels()
    network: Network
    diffusion: Diffusion
    trainer: Trainer

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.network.check_resolution(self.data.resolution)
        return self


class TrialSpec(Frozen):
    """One trial: a configuration at one N and one seed, and how it is measured. `name` is for
    people only."""

    name: str
    configuration: Configuration
    measurement: Measurement
    n: int = Field(ge=2, le=MOST_IMAGES, description="number of training images N")
    seed: int = Field(
        ge=0, description="0, 1, 2 … within a study; decides subset, initialization, noise, latents"
    )

    @property
    def title(self) -> str:
        """Which trial of its configuration this is, for people."""
        return f"N={self.n} seed={self.seed}"

    @property
    def why_no_half(self) -> str:
        """Why no snapshot shows what a training of half the length would have given; "" if one
        does."""
        if self.measurement.protocol == "paper":
            return "protocol=paper takes its snapshots by images, not at half of a training"
        return self.configuration.trainer.why_no_half

    def training_key(self, digest: str) -> str:
        """Identity of the weights, given the content digest of the whole data set."""
        key = configuration_key(self.configuration, digest)
        trained = {"configuration": key, "n": self.n, "seed": self.seed}
        if self.measurement.protocol != "own":  # it decides the subset
            trained["protocol"] = self.measurement.protocol
        return key_of(trained)

    def measurement_key(self, digest: str) -> str:
        """Identity of the numbers measured on them."""
        return key_of(
            {"training": self.training_key(digest), "measurement": identity(self.measurement)}
        )


def configuration_key(configuration: Configuration, digest: str) -> str:
    """Identity of a configuration: all that decides the weights but N and the seed."""
    return key_of({**described(configuration), "data": digest, "numerics": NUMERICS})


def described(configuration: Configuration) -> dict[str, Any]:
    """The identities of its sections, without the data."""
    sections = ["network", "diffusion", "trainer"]
    if configuration.labels.kind != "none":  # as before there were any
        sections.append("labels")
    return {section: identity(getattr(configuration, section)) for section in sections}
