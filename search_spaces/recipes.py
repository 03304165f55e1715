"""Base recipes: complete configurations, from which search spaces vary a field or two."""

from trainables.config.data import Cifar10, Digits
from trainables.config.diffusion import EDM, VP
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration

# The basic experiment of Gu et al. 2023 (arXiv 2310.02664): DDPM++ on CIFAR-10, VP, 40,000 epochs
# at every N.
PAPER = Configuration(data=Cifar10(), network=DDPMpp(), diffusion=VP(), trainer=StandardTrainer())

# Their sampler is the default: EDM Heun, 18 steps, σ 0.002–80, ρ 7.
PAPER_MEASUREMENT = Measurement()

# The same network family on 8×8 digits, at a fixed number of steps, so that a trial takes seconds
# on a CPU core. The noise law is narrower than EDM's default and centred on the noise levels that
# decide between copying and blurring; a choice made for speed. At a fixed number of steps R_mem
# falls steeply with N. The rate rises for a quarter of the training and falls for the rest, with
# Adam's own beta_2: so seeds agree better than with 50 steps of warm-up and 0.99 (docs/bank.md).
DIGITS = Configuration(
    data=Digits(),
    network=DDPMpp(width=16, depth=1, multipliers=(1, 2), attention=(), dropout=0.0),
    diffusion=EDM(sigma_data=0.75, P_mean=-1.3, P_std=0.5, stratified=True),
    trainer=StandardTrainer(
        clock="steps",
        length=400,
        batch=64,
        lr=2e-2,
        warmup=100,
        decay=0.75,
        ema_decay=0.98,
        ema_rampup=0.0,
        order="reshuffled",
    ),
)
# 300 images at a snapshot, so that an early accept can act: if all of fewer than 253 are copies,
# .985 is not yet shown.
DIGITS_MEASUREMENT = Measurement(
    n_samples=500,
    n_selection=300,
    snapshots=4,
    sampler_steps=10,
    sigma_min=0.02,
    sigma_max=10.0,
    batch=250,
)
