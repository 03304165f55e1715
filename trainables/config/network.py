"""Networks: the fields of each, and where its module is."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from trainables.config.code import Builder, BuilderOptions, Version
from trainables.config.identity import Frozen


class AnyNetwork(Frozen):
    """What every network is asked. A new one is a class here, its name in `Network`, and a module
    that builds it."""

    built_by: ClassVar[str]
    """What is called as (this configuration, resolution, channels, label_dim) and returns a
    torch.nn.Module; "package.module:name"."""

    def check_resolution(self, resolution: int) -> None:
        """Raises ValueError if images of so many pixels a side don't fit the network."""


class UNet(AnyNetwork):
    """The U-Net of Song et al. 2021 (arXiv 2011.13456); DDPM++ and NCSN++ differ in how resolutions
    and times are treated."""

    built_by: ClassVar[str] = "trainables.networks.song_unet:SongUNet"

    kind: str
    width: int = Field(128, ge=4, le=2048, multiple_of=4, description="base channels")
    depth: int = Field(2, ge=1, le=32, description="residual blocks per resolution")
    multipliers: tuple[int, ...] = Field(
        (2, 2, 2), min_length=1, description="channels of each resolution / width"
    )
    attention: tuple[int, ...] = Field(
        (16,), description="resolutions with self-attention; the lowest one has it always"
    )
    dropout: float = Field(
        0.13, ge=0, lt=1, description="dropout probability inside the residual blocks"
    )
    time_embedding: Literal["positional", "fourier"] = Field(
        "positional", description="how the network is told the noise level"
    )
    skips: tuple[bool, ...] | None = Field(
        None,
        description="keep flag of each skip connection, from the input on; a removed skip is zeros",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.multipliers) < 1:
            raise ValueError("multipliers must be 1 or more")
        n_skips = len(self.multipliers) * (self.depth + 1)
        if self.skips is not None and len(self.skips) != n_skips:
            raise ValueError(
                f"skips needs {n_skips} flags at this depth (resolutions × (depth + 1)), "
                f"not {len(self.skips)}"
            )
        return self

    def check_resolution(self, resolution: int) -> None:
        halvings = len(self.multipliers) - 1
        if resolution % 2**halvings:
            raise ValueError(
                f"network.multipliers: {halvings + 1} resolutions need data.resolution divisible "
                f"by {2**halvings}, not {resolution}"
            )


class DDPMpp(UNet):
    """DDPM++ (Song et al. 2021, arXiv 2011.13456) as used by Gu et al. (arXiv 2310.02664)."""

    kind: Literal["ddpmpp"] = "ddpmpp"


class NCSNpp(UNet):
    """NCSN++ (the same papers): residual encoder, Fourier time embedding of twice the width,
    resampling by [1, 3, 3, 1]."""

    kind: Literal["ncsnpp"] = "ncsnpp"
    time_embedding: Literal["positional", "fourier"] = Field(
        "fourier", description="how the network is told the noise level"
    )


class DiT(AnyNetwork):
    """Diffusion transformer with adaLN-Zero (Peebles & Xie 2022, arXiv 2212.09748); S, B and L are
    its paper's sizes."""

    built_by: ClassVar[str] = "trainables.networks.dit:DiT"

    kind: Literal["dit"] = "dit"
    size: Literal["S", "B", "L"] = Field(
        "S", description="S 384 wide, 12 deep, 6 heads; B 768, 12, 12; L 1024, 24, 16"
    )
    patch: int = Field(2, ge=1, le=32, description="pixels a side of a patch")
    width: int | None = Field(
        None, ge=8, le=4096, multiple_of=4, description="in place of the size's width"
    )
    depth: int | None = Field(
        None, ge=1, le=64, description="in place of the size's number of blocks"
    )
    heads: int | None = Field(
        None, ge=1, le=64, description="in place of the size's number of attention heads"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth and heads."""
        sizes = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}
        width, depth, heads = sizes[self.size]
        return self.width or width, self.depth or depth, self.heads or heads

    @model_validator(mode="after")
    def _check(self) -> Self:
        width, _, heads = self.shape
        if width % heads:
            raise ValueError(f"heads must divide the width, and {heads} does not divide {width}")
        return self

    def check_resolution(self, resolution: int) -> None:
        if resolution % self.patch:
            raise ValueError(
                f"network.patch must divide data.resolution ({resolution}), not {self.patch}"
            )


class MLP(AnyNetwork):
    """Residual fully connected layers on the flattened image, for small data."""

    built_by: ClassVar[str] = "trainables.networks.mlp:MLP"

    kind: Literal["mlp"] = "mlp"
    width: int = Field(256, ge=4, le=8192, multiple_of=2, description="units of each layer")
    depth: int = Field(3, ge=1, le=64, description="residual blocks, of two layers each")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability inside the blocks")


class CustomNetwork(AnyNetwork):
    """A network of your own: `builder` returns a torch module called as (x, noise_level, labels);
    see docs/custom.md."""

    built_by: ClassVar[str] = "trainables.networks.custom:build_custom"

    kind: Literal["custom"] = "custom"
    builder: Builder
    options: BuilderOptions = Field({}, description="keyword arguments of the builder")
    version: Version = ""


class Optimum(AnyNetwork):
    """The closed-form minimizer of the denoising loss on the training images: nothing is trained,
    it can only copy.

    It is a denoiser as it is, and needs these images: `build_denoiser` makes it.
    """

    kind: Literal["optimum"] = "optimum"


Network = Annotated[
    DDPMpp | NCSNpp | DiT | MLP | CustomNetwork | Optimum, Field(discriminator="kind")
]
