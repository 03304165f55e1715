"""Trainers: ours, and one of the user's own."""

from typing import Annotated, Literal

from pydantic import Field

from trainables.config.code import Builder, BuilderOptions, Version
from trainables.config.identity import IGNORED, Frozen

Decay = Annotated[float, Field(ge=0, lt=1)]


class AnyTrainer(Frozen):
    """What plans, searches and measurements must know of any training: its length, and whether
    mirror images are trained on."""

    kind: str
    clock: Literal["epochs", "steps"] = Field("epochs", description="unit of length and warmup")
    length: int = Field(40_000, ge=1, description="length of training, in the unit of clock")
    batch: int = Field(512, ge=1, description="images per step")
    augment: Literal["none", "flip"] = Field(
        "none", description="flip: half of the training images are mirrored, at random"
    )

    def train_images(self, n: int) -> int:
        """Images seen by the whole training of N = `n` images (the last step may be a smaller
        batch)."""
        return self.length * (n if self.clock == "epochs" else self.batch)

    def train_steps(self, n: int) -> int:
        """Optimizer steps of the whole training of N = `n` images."""
        return -(-self.train_images(n) // self.batch)

    @property
    def why_no_half(self) -> str:
        """Why the first half of a training is no training of half the length; "" if it is one, to a
        step."""
        raise NotImplementedError


class StandardTrainer(AnyTrainer):
    """Adam on the denoising loss, with warm-up and an exponential moving average (EMA) of the
    weights."""

    kind: Literal["standard"] = "standard"
    lr: float = Field(2e-4, gt=0, description="learning rate after warm-up")
    warmup: int = Field(200, ge=0, description="linear warm-up from 0, in the unit of clock")
    decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the training, at its end, in which lr falls linearly to 0",
    )
    lr_batch: int | None = Field(
        None,
        ge=1,
        description="batch that lr is for: lr grows with batch / lr_batch; null: it doesn't",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        "adam", description="adamw decouples the weight decay"
    )
    betas: tuple[Decay, Decay] = Field(
        (0.9, 0.999), description="Adam's beta_1, beta_2; beta_1 is the momentum of SGD"
    )
    eps: float = Field(1e-8, gt=0, description="Adam's epsilon")
    weight_decay: float = Field(
        0.0, ge=0, description="L2 penalty, added to the gradient (adamw: decoupled, times lr)"
    )
    ema_decay: float = Field(
        0.99929, ge=0, lt=1, description="EMA decay per step; 0 switches it off"
    )
    ema_rampup: float = Field(
        0.05, ge=0, description="EMA half-life at most this share of images seen; 0: no ramp-up"
    )
    order: Literal["cycled", "reshuffled"] = Field(
        "cycled", description="the subset's order: one for all epochs, or each its own"
    )
    noise_draws: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="noise levels and noises that each training image has, and takes in turn; null: "
        "new ones whenever it is trained on",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="arithmetic of the network; tf32 needs a GPU"
    )
    compile: bool | None = Field(
        None,
        description="fuse the network's kernels by torch.compile (dropout masks depend on it); "
        "null: on a GPU, in trainings of 20,000 steps or more",
        json_schema_extra=IGNORED,
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="images on the device at once, gradients are accumulated (dropout masks "
        "depend on it); null: batch",
        json_schema_extra=IGNORED,
    )

    @property
    def scaled_lr(self) -> float:
        """Learning rate after warm-up at this batch."""
        return self.lr * (self.batch / self.lr_batch if self.lr_batch else 1.0)

    def warmup_images(self, n: int) -> int:
        return self.warmup * (n if self.clock == "epochs" else self.batch)

    def lr_factor(self, n: int, position: int) -> float:
        """Learning rate / `lr` for the step that begins after `position` images of a training of
        N = `n`: linear warm-up, constant, linear decay."""
        warmup, total = self.warmup_images(n), self.train_images(n)
        rising = min((position + self.batch) / warmup, 1.0) if warmup else 1.0
        falling = min((total - position) / (self.decay * total), 1.0) if self.decay else 1.0
        return rising * falling

    def highest_lr_factor(self, n: int) -> float:
        """Of a training of N = `n` images, to a 200th of it."""
        total = self.train_images(n)
        return max(self.lr_factor(n, round(total * part / 200)) for part in range(200))

    @property
    def why_no_half(self) -> str:
        """Warm-up, order and averaging depend on what was trained so far alone; the decay on what
        is still to come."""
        if self.decay == 0:
            return ""
        return f"the learning rate decays over the last {self.decay:.0%} of the training"


class CustomTrainer(AnyTrainer):
    """A trainer of your own: `builder` is called as trainables.training.custom.YourTrainer says;
    see docs/custom.md."""

    kind: Literal["custom"] = "custom"
    builder: Builder
    options: BuilderOptions = Field({}, description="keyword arguments of the builder")
    version: Version = ""

    @property
    def why_no_half(self) -> str:
        return "what a trainer of your own changes on the way is not known"


Trainer = Annotated[StandardTrainer | CustomTrainer, Field(discriminator="kind")]
