"""What defines a trial: frozen, validated descriptions with a JSON form and an identity. No torch here.

Identity. A key is the SHA-256 of canonical JSON. Fields at their default value are left out of it, so that a field
added later (with the old behaviour as its default) orphans no result; defaults are therefore frozen, by a test.
Paths, devices and batch sizes that do not change the numbers are marked `identity=False`; of the data only the
content digest enters. NUMERICS is raised when the same description would give other numbers than before.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError, model_validator

from trainables.data_config import (
    IGNORED as IGNORED,
    Arrays as Arrays,
    Cifar10 as Cifar10,
    Data as Data,
    Digits as Digits,
    Duplicates as Duplicates,
    Folder as Folder,
    Frozen as Frozen,
    Labels as Labels,
    Mix as Mix,
    Mnist5k as Mnist5k,
    NoLabels as NoLabels,
    Photos as Photos,
    RandomLabels as RandomLabels,
    Source as Source,
    TrueLabels as TrueLabels,
    UniqueLabels as UniqueLabels,
)
from trainables.errors import UserError

NUMERICS = 1
MOST_IMAGES = 10**9  # that a range of N may reach


# ---------------------------------------------------------------- network


class UNet(Frozen):
    """The U-Net of Song et al. 2021 (arXiv 2011.13456); DDPM++ and NCSN++ differ in how resolutions and times are treated."""

    kind: str
    width: int = Field(128, ge=4, le=2048, multiple_of=4, description="base channels")
    depth: int = Field(2, ge=1, le=32, description="residual blocks per resolution")
    multipliers: tuple[int, ...] = Field((2, 2, 2), min_length=1, description="channels of each resolution / width")
    attention: tuple[int, ...] = Field((16,), description="resolutions with self-attention; the lowest one has it always")
    dropout: float = Field(0.13, ge=0, lt=1, description="dropout probability inside the residual blocks")
    time_embedding: Literal["positional", "fourier"] = "positional"
    skips: tuple[bool, ...] | None = Field(
        None, description="keep flag of each skip connection, from the input on; a removed skip is zeros"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.multipliers) < 1:
            raise ValueError("multipliers must be 1 or more")
        n_skips = len(self.multipliers) * (self.depth + 1)
        if self.skips is not None and len(self.skips) != n_skips:
            raise ValueError(f"skips needs {n_skips} flags at this depth (resolutions × (depth + 1)), not {len(self.skips)}")
        return self


class DDPMpp(UNet):
    """DDPM++ (Song et al. 2021, arXiv 2011.13456) as used by Gu et al. (arXiv 2310.02664)."""

    kind: Literal["ddpmpp"] = "ddpmpp"


class NCSNpp(UNet):
    """NCSN++ (the same papers): residual encoder, Fourier time embedding of twice the width, resampling by [1, 3, 3, 1]."""

    kind: Literal["ncsnpp"] = "ncsnpp"
    time_embedding: Literal["positional", "fourier"] = "fourier"


class DiT(Frozen):
    """Diffusion transformer with adaLN-Zero (Peebles & Xie 2022, arXiv 2212.09748); S, B and L are its paper's sizes."""

    kind: Literal["dit"] = "dit"
    size: Literal["S", "B", "L"] = Field("S", description="S 384 wide, 12 deep, 6 heads; B 768, 12, 12; L 1024, 24, 16")
    patch: int = Field(2, ge=1, le=32, description="pixels a side of a patch")
    width: int | None = Field(None, ge=8, le=4096, multiple_of=4, description="in place of the size's width")
    depth: int | None = Field(None, ge=1, le=64, description="in place of the size's number of blocks")
    heads: int | None = Field(None, ge=1, le=64, description="in place of the size's number of attention heads")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth and heads."""
        width, depth, heads = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}[self.size]
        return self.width or width, self.depth or depth, self.heads or heads

    @model_validator(mode="after")
    def _check(self) -> Self:
        width, _, heads = self.shape
        if width % heads:
            raise ValueError(f"heads must divide the width, and {heads} does not divide {width}")
        return self


class MLP(Frozen):
    """Residual fully connected layers on the flattened image, for small data."""

    kind: Literal["mlp"] = "mlp"
    width: int = Field(256, ge=4, le=8192, multiple_of=2, description="units of each layer")
    depth: int = Field(3, ge=1, le=64, description="residual blocks, of two layers each")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability inside the blocks")


def _check_builder(path: str) -> str:
    module, colon, name = path.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError("write it as package.module:name")
    return path


Builder = Annotated[str, AfterValidator(_check_builder), Field(description="package.module:name of a function or class")]


class CustomNetwork(Frozen):
    """A network of your own: `builder` returns a torch module called as (x, noise_level, labels); see docs/custom.md."""

    kind: Literal["custom"] = "custom"
    builder: Builder
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of the builder")
    version: str = Field("", description="change it when your code changes: of the code only names and options are compared")


class Optimum(Frozen):
    """The closed-form minimizer of the denoising loss on the training images: nothing is trained, it can only copy."""

    kind: Literal["optimum"] = "optimum"


Network = Annotated[DDPMpp | NCSNpp | DiT | MLP | CustomNetwork | Optimum, Field(discriminator="kind")]


# ---------------------------------------------------------------- diffusion


class EDM(Frozen):
    """Preconditioning, noise law and loss of Karras et al. 2022 (arXiv 2206.00364), table 1, column EDM."""

    kind: Literal["edm"] = "edm"
    sigma_data: float = Field(0.5, gt=0, description="standard deviation of the data, pixels in [-1, 1]")
    P_mean: float = Field(-1.2, description="mean of ln sigma in training")
    P_std: float = Field(1.2, gt=0, description="standard deviation of ln sigma in training")
    stratified: bool = Field(False, description="draw the noise levels of a batch at evenly spaced quantiles")


class VP(Frozen):
    """Variance preserving: Song et al. 2021 in the notation of arXiv 2206.00364, table 1, column VP."""

    kind: Literal["vp"] = "vp"
    beta_d: float = Field(19.9, gt=0, description="extent of the noise level schedule")
    beta_min: float = Field(0.1, gt=0, description="initial slope of the noise level schedule")
    epsilon_t: float = Field(1e-5, gt=0, lt=1, description="smallest time in training")
    M: int = Field(1000, ge=2, description="number of time steps of the network's noise input")


class VE(Frozen):
    """Variance exploding: Song et al. 2021 in the notation of arXiv 2206.00364, table 1, column VE; ln sigma uniform."""

    kind: Literal["ve"] = "ve"
    sigma_min: float = Field(0.02, gt=0, description="lowest noise level in training")
    sigma_max: float = Field(100.0, gt=0, description="highest noise level in training")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be below sigma_max")
        return self


class Flow(Frozen):
    """Flow matching on straight paths x_t = (1 − t) x_0 + t ε with velocity prediction (arXiv 2210.02747, 2209.03003)."""

    kind: Literal["flow"] = "flow"
    times: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="law of t in training; logit_normal as in arXiv 2403.03206"
    )
    t_mean: float = Field(0.0, description="mean of logit t, if that is normal")
    t_std: float = Field(1.0, gt=0, description="standard deviation of logit t, if that is normal")


Diffusion = Annotated[EDM | VP | VE | Flow, Field(discriminator="kind")]


# ---------------------------------------------------------------- trainer


Decay = Annotated[float, Field(ge=0, lt=1)]


class AnyTrainer(Frozen):
    """What plans, searches and measurements must know of any training: its length, and whether mirror images are trained on."""

    kind: str
    clock: Literal["epochs", "steps"] = Field("epochs", description="unit of length and warmup")
    length: int = Field(40_000, ge=1, description="length of training, in the unit of clock")
    batch: int = Field(512, ge=1, description="images per step")
    augment: Literal["none", "flip"] = Field("none", description="flip: half of the training images are mirrored, at random")

    def train_images(self, n: int) -> int:
        """Images seen by the whole training of N = `n` images (the last step may be a smaller batch)."""
        return self.length * (n if self.clock == "epochs" else self.batch)

    def train_steps(self, n: int) -> int:
        """Optimizer steps of the whole training of N = `n` images."""
        return -(-self.train_images(n) // self.batch)

    @property
    def why_no_half(self) -> str:
        """Why the first half of a training is no training of half the length; "" if it is one, to a step."""
        raise NotImplementedError


class StandardTrainer(AnyTrainer):
    """Adam on the denoising loss, with warm-up and an exponential moving average (EMA) of the weights."""

    kind: Literal["standard"] = "standard"
    lr: float = Field(2e-4, gt=0, description="learning rate after warm-up")
    warmup: int = Field(200, ge=0, description="linear warm-up from 0, in the unit of clock")
    decay: float = Field(0.0, ge=0, le=1, description="share of the training, at its end, in which lr falls linearly to 0")
    lr_batch: int | None = Field(
        None, ge=1, description="batch that lr is for: lr grows with batch / lr_batch; None: it doesn't"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="adamw decouples the weight decay")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="Adam's beta_1, beta_2; beta_1 is the momentum of SGD")
    eps: float = Field(1e-8, gt=0, description="Adam's epsilon")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient (adamw: decoupled, times lr)")
    ema_decay: float = Field(0.99929, ge=0, lt=1, description="EMA decay per step; 0 switches it off")
    ema_rampup: float = Field(0.05, ge=0, description="EMA half-life at most this share of images seen; 0: no ramp-up")
    order: Literal["cycled", "reshuffled"] = Field(
        "cycled", description="the subset's order: one for all epochs, or each its own"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="arithmetic of the network; tf32 needs a GPU")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="images on the device at once, gradients are accumulated (dropout masks depend on it); None: batch",
        json_schema_extra=IGNORED,
    )

    @property
    def scaled_lr(self) -> float:
        """Learning rate after warm-up at this batch."""
        return self.lr * (self.batch / self.lr_batch if self.lr_batch else 1.0)

    def warmup_images(self, n: int) -> int:
        return self.warmup * (n if self.clock == "epochs" else self.batch)

    @property
    def why_no_half(self) -> str:
        """Warm-up, order and averaging depend on what was trained so far alone; the decay on what is still to come."""
        if self.decay == 0:
            return ""
        return f"the learning rate decays over the last {self.decay:.0%} of the training"


class CustomTrainer(AnyTrainer):
    """A trainer of your own: `builder` is called as trainables.custom.YourTrainer says; see docs/custom.md."""

    kind: Literal["custom"] = "custom"
    builder: Builder
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of the builder")
    version: str = Field("", description="change it when your code changes: of the code only names and options are compared")

    @property
    def why_no_half(self) -> str:
        return "what a trainer of your own changes on the way is not known"


Trainer = Annotated[StandardTrainer | CustomTrainer, Field(discriminator="kind")]


# ---------------------------------------------------------------- configuration, measurement, trial


class Configuration(Frozen):
    """Everything that defines (P, M, T) except the number N of training images."""

    data: Data
    labels: Labels = NoLabels()
    network: Network
    diffusion: Diffusion
    trainer: Trainer

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.network, DiT) and self.data.resolution % self.network.patch:
            raise ValueError(f"network.patch must divide data.resolution ({self.data.resolution}), not {self.network.patch}")
        if isinstance(self.network, UNet):
            halvings = len(self.network.multipliers) - 1
            if self.data.resolution % 2**halvings:
                raise ValueError(
                    f"network.multipliers: {halvings + 1} resolutions need data.resolution divisible by {2**halvings}, "
                    f"not {self.data.resolution}"
                )
        return self


# The protocol of Gu et al. 2023: a snapshot every 2.5 M images, each measured on the same 10,000 latents; R_mem is the maximum.
PAPER_SNAPSHOT_IMAGES = 2_500_000
PAPER_PROTOCOL: dict[str, Any] = {
    "n_samples": 10_000, "n_selection": 10_000, "snapshots": None, "logit_se": 0.0, "accept": None
}  # fmt: skip

WILSON_Z2 = 3.841458820694124  # square of the normal quantile .975


class Measurement(Frozen):
    """How R_mem of a trained network is measured."""

    protocol: Literal["own", "paper"] = Field(
        "own",
        description="paper: the first images of every class for every seed, latents 0 … 9,999 for all, maximum over snapshots, "
        "labels drawn from all C alike, also from those that no training image has",
    )
    n_samples: int = Field(2000, ge=1, le=1_000_000, description="images generated for R_mem, with fresh latents, at most")
    logit_se: float = Field(
        0.0, ge=0, description="enough images once logit R_mem has this standard error; 0: always n_samples of them"
    )
    accept: float | None = Field(
        None, gt=0, lt=1, description="end a trial at a snapshot whose R_mem is above this with 97.5 %; None: never"
    )
    n_selection: int = Field(500, ge=1, description="images generated at each snapshot, to choose the best one")
    snapshots: int | None = Field(
        8, ge=2, le=1000, multiple_of=2, description="snapshots per trial, evenly spaced, whatever N is; None: protocol=paper"
    )
    sampler: Literal["heun", "euler"] = Field("heun", description="ODE sampler: second or first order")
    sampler_steps: int = Field(18, ge=2, le=1000, description="steps of the sampler (network calls: Heun 2·steps − 1)")
    sigma_min: float = Field(0.002, gt=0, description="lowest noise level of the sampler")
    sigma_max: float = Field(80.0, gt=0, description="highest noise level of the sampler")
    rho: float = Field(7.0, gt=0, description="time step exponent of the sampler")
    k: float = Field(1 / 3, gt=0, lt=1, description="a sample is memorized if d1 < k·d2")
    batch: int = Field(500, ge=1, description="images generated at once", json_schema_extra=IGNORED)

    @model_validator(mode="before")
    @classmethod
    def _follow_protocol(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("protocol") != "paper":
            return values
        for name, value in PAPER_PROTOCOL.items():
            default = cls.model_fields[name].default
            if (given := values.get(name, default)) not in (default, value):
                raise ValueError(f"protocol=paper needs {name}={json.dumps(value)}, not {given!r}; set it so or leave it out")
        return {**values, **PAPER_PROTOCOL}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be below sigma_max")
        if self.snapshots is None and self.protocol == "own":
            raise ValueError("snapshots must be a number unless protocol=paper")
        return self

    @property
    def n_selection_to_accept(self) -> int:
        """Fewest images of a snapshot that can end a trial early: if all of `n` are copies, 97.5 % are sure of n / (n + z²).

        That is Wilson's bound (see `trainables.memorization.r_mem_interval`), with z² = 3.84; 0 without `accept`.
        """
        return 0 if self.accept is None else math.floor(WILSON_Z2 * self.accept / (1 - self.accept)) + 1

    @property
    def network_calls(self) -> int:
        """That generate one image."""
        return self.sampler_steps if self.sampler == "euler" else 2 * self.sampler_steps - 1

    def snapshots_of(self, images: int) -> int:
        """Number of snapshots of a training that sees `images` images."""
        return self.snapshots or max(1, -(-images // PAPER_SNAPSHOT_IMAGES))

    def due(self, number: int, images: int) -> float:
        """Share of such a training after which snapshot `number` (1, 2 …) is taken."""
        return min(1.0, number / self.snapshots if self.snapshots else number * PAPER_SNAPSHOT_IMAGES / max(images, 1))

    def half(self, images: int) -> int | None:
        """Number of the snapshot after exactly half of such a training; None if there is none."""
        number = self.snapshots_of(images) // 2
        return number if self.due(number, images) == 0.5 else None


class TrialSpec(Frozen):
    """One trial: a configuration at one N and one seed, and how it is measured. `name` is for people only."""

    name: str
    configuration: Configuration
    measurement: Measurement
    n: int = Field(ge=2, le=MOST_IMAGES, description="number of training images N")
    seed: int = Field(ge=0, description="0, 1, 2 … within a study; decides subset, initialization, noise, latents")

    @property
    def why_no_half(self) -> str:
        """Why no snapshot shows what a training of half the length would have given; "" if one does."""
        if self.measurement.protocol == "paper":
            return "protocol=paper takes its snapshots by images, not at half of a training"
        return self.configuration.trainer.why_no_half

    def training_key(self, digest: str) -> str:
        """Identity of the weights, given the content digest of the whole data set."""
        protocol = {} if self.measurement.protocol == "own" else {"protocol": self.measurement.protocol}  # decides the subset
        key = configuration_key(self.configuration, digest)
        return key_of({"configuration": key, "n": self.n, "seed": self.seed, **protocol})

    def measurement_key(self, digest: str) -> str:
        """Identity of the numbers measured on them."""
        return key_of({"training": self.training_key(digest), "measurement": identity(self.measurement)})


# ---------------------------------------------------------------- identity


def configuration_key(configuration: Configuration, digest: str) -> str:
    """Identity of a configuration: all that decides the weights but N and the seed."""
    return key_of({**described(configuration), "data": digest, "numerics": NUMERICS})


def described(configuration: Configuration) -> dict[str, Any]:
    """The identities of its sections, without the data."""
    sections = {section: identity(getattr(configuration, section)) for section in ("network", "diffusion", "trainer")}
    labels = {} if configuration.labels.kind == "none" else {"labels": identity(configuration.labels)}
    return {**sections, **labels}


def identity(model: Frozen) -> dict[str, Any]:
    """The fields of `model` that count: `kind`, and what differs from its default, without fields marked identity=False."""
    counted = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        ignored = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("identity") is False
        if name == "kind" or (not ignored and value != field.default):
            counted[name] = value
    return counted


def key_of(value: Mapping[str, Any]) -> str:
    """SHA-256 (32 hexadecimal digits of it) of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a purpose and a position, so that no random number depends on what was drawn before."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8]) >> 1


# ---------------------------------------------------------------- changing fields by path

Model = TypeVar("Model", bound=Frozen)


def with_fields(model: Model, changes: Mapping[str, Any], prefix: str = "") -> Model:
    """`model` with fields replaced by dotted path, validated anew; `prefix` is where `model` stands, for messages.

    Setting `x.kind` drops the fields of the former kind. Raises UserError naming the field, what was given, what is allowed.
    """
    tree = model.model_dump()
    renewed = set()  # sections whose kind is set: pydantic fills in their other fields
    for path, value in sorted(changes.items(), key=lambda change: not change[0].endswith(".kind")):
        *sections, name = path.split(".")
        node, owner = tree, prefix.removesuffix(".") or type(model).__name__.lower()
        for section in sections:
            if section == "options":  # of the user's code: whatever they are called
                node.setdefault(section, {})
            if node.get(section) is None and (section in node or owner in renewed):  # an optional group of fields
                node[section] = {}
                renewed.add(section)
            if not isinstance(node.get(section), dict):
                raise UserError(_no_such_field(prefix + path, section, owner, node))
            node, owner = node[section], section
        if name == "kind":
            node.clear()
            renewed.add(owner)
        elif name not in node and owner not in renewed and owner != "options":
            raise UserError(_no_such_field(prefix + path, name, owner, node))
        elif isinstance(node.get(name), dict) and "options" not in (name, owner):
            raise UserError(f"{path} is a group of fields: set one of {', '.join(f'{path}.{field}' for field in node[name])}")
        node[name] = value
    return validated(type(model), tree, prefix)


def validated(kind: type[Model], tree: Any, prefix: str = "") -> Model:
    """`kind` built from plain data; raises UserError with the first thing that is wrong."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, prefix)) from None


def explain(error: ValidationError, prefix: str = "") -> str:
    """One line for the first error: the field, what is allowed, what was given."""
    first = error.errors()[0]
    kinds = {"digits", "mnist5k", "cifar10", "folder", "arrays", "photos", "ddpmpp", "optimum", "edm", "vp"}
    kinds |= {"ncsnpp", "dit", "mlp", "custom", "ve", "flow", "standard", "none", "true", "random", "unique"}
    path = prefix + ".".join(str(part) for part in first["loc"] if part not in kinds)
    allowed = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{path}: there is no such field"
    if isinstance(first["input"], dict | BaseModel):
        return f"{path.removesuffix('.')}: {allowed}" if path else allowed
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}: {allowed}, not {first['input']!r}{more}"


def _no_such_field(path: str, name: str, owner: str, node: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, node, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{owner} has: {', '.join(node)}"
    return f"{path}: no field {name!r}; {hint}"
