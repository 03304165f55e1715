"""The search spaces that `emm` knows by name: one row a question, asked of CIFAR-10 as the paper
did, and of small digits.

What a row varies is either a field and its values, or a factor and its named values, each a group
of fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT, PAPER, PAPER_MEASUREMENT
from search_spaces.space import Expected, Search, SearchSpace
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement

GU = "Gu et al. 2023 (arXiv 2310.02664)"
OPEN = "open: no published EMM is known to us"


@dataclass(frozen=True)
class Asked:
    """What a question varies with one recipe; `settings` change the recipe, `search` the range,
    `measurement` how a trial is measured."""

    vary: dict[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    measurement: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A question, `<name>` of `cifar10-<name>` and `digits-<name>`, and how each recipe is
    asked."""

    name: str
    question: str
    source: str
    expectation: str
    cifar10: Asked
    digits: Asked


def kept(*flags: int) -> tuple[bool, ...]:
    """Skip flags: 1 keeps a connection, 0 replaces it by zeros."""
    return tuple(map(bool, flags))


def first_kept(counts: tuple[int, ...], of: int) -> dict[str, Any]:
    """So many skip connections kept, from the input on."""
    return {
        str(count): {"network.skips": (True,) * count + (False,) * (of - count)} for count in counts
    }


def numbers_of_labels(*classes: int) -> dict[str, Any]:
    return {f"random {c}": {"labels.kind": "random", "labels.classes": c} for c in classes}


def draws(*counts: int) -> dict[str, Any]:
    """So many noise draws of each training image; new ones always."""
    return {str(count): {"trainer.noise_draws": count} for count in counts} | {"new": {}}


PAIR = {"pair": True}
NARROW = {"network.width": 8}
SMALL_DIT = {
    "network.kind": "dit", "network.width": 48, "network.depth": 3, "network.heads": 3,
    "network.patch": 2, "trainer.lr": 3e-3,
}  # fmt: skip

ROWS = [
    Row(
        "width",
        "Does a wider network memorize more training images?",
        f"{GU}: width 128–320",
        "EMM grows with the width: about 1.06k at width 128, about 5k at width 320 on CIFAR-10",
        Asked({"network.width": (128, 192, 256, 320)}),
        Asked({"network.width": (4, 8)}, search={"precision": 0.15}),
    ),
    Row(
        "depth",
        "Does a deeper network memorize more training images?",
        f"{GU}: 2–12 residual blocks per resolution at width 128",
        "EMM is not monotone in the depth",
        Asked({"network.depth": (2, 4, 6, 8, 10, 12)}),
        Asked({"network.depth": (1, 2)}, NARROW),
    ),
    Row(
        "embedding",
        "Does the time embedding matter: positional or Fourier?",
        f"{GU}: at 2 and at 4 residual blocks per resolution",
        "positional memorizes more",
        Asked({"network.depth": (2, 4), "network.time_embedding": ("positional", "fourier")}),
        Asked({"network.time_embedding": ("positional", "fourier")}, NARROW),
    ),
    Row(
        "skip-resolution",
        "Skip connections of which resolution does memorization need?",
        f"{GU}: removed skips are zeros; here those of one resolution are kept",
        "the highest: with one skip kept, R_mem at N = 1,000 is .92–.93 at 32², .61–.81 at 16², "
        ".002–.13 at 8²",
        Asked({"skips": {
            "all": {},
            "32x32": {"network.skips": kept(1, 1, 1, 0, 0, 0, 0, 0, 0)},
            "16x16": {"network.skips": kept(0, 0, 0, 1, 1, 1, 0, 0, 0)},
            "8x8": {"network.skips": kept(0, 0, 0, 0, 0, 0, 1, 1, 1)},
        }}),
        Asked({"skips": {
            "all": {},
            "8x8": {"network.skips": kept(1, 1, 0, 0)},
            "4x4": {"network.skips": kept(0, 0, 1, 1)},
        }}, NARROW),
    ),
    Row(
        "skip-count",
        "How many skip connections does memorization need?",
        f"{GU}: removed skips are zeros; here those nearest the input are kept",
        "few: one at the highest resolution gives the R_mem of all nine at N = 1,000",
        Asked({"skips": first_kept((0, 1, 3, 6, 9), of=9)}),
        Asked({"skips": first_kept((0, 1, 4), of=4)}, NARROW),
    ),
    Row(
        "labels",
        "Does conditioning on labels raise memorization, and do they have to be informative?",
        f"{GU}: no, true, and random labels of C classes",
        "1.06k without, about 1.4k with 10 true or random labels; the more random classes, the more "
        "is memorized",
        Asked({"labels": {
            "none": {},
            "true": {"labels.kind": "true"},
            **numbers_of_labels(1, 10, 50, 100, 500, 1000),
        }}),
        Asked({"labels": {
            "none": {},
            "true": {"labels.kind": "true"},
            **numbers_of_labels(10),
        }}, NARROW, {"n_low": 10}),
    ),
    Row(
        "unique",
        "How much is memorized if every training image has a label of its own?",
        f"{GU}: EDM, 4 residual blocks, 12,000 epochs, learning rate 1e-3",
        "far more: at N = 50,000 about 65 % of the samples and rising, against 0 % without labels",
        Asked(
            {"labels": {"none": {}, "unique": {"labels.kind": "unique"}}},
            {
                "diffusion.kind": "edm", "network.depth": 4,
                "trainer.length": 12_000, "trainer.lr": 1e-3,
            },
            {"n_low": 1000, "n_high": 50_000},
        ),
        Asked({"labels": {"none": {}, "unique": {"labels.kind": "unique"}}}, NARROW),
    ),
    Row(
        "resolution",
        "Are smaller images memorized more?",
        f"{GU}: 8, 16 and 32 pixels, attention at half of them",
        "yes: 7.6k at 8², 4.5k at 16², 1.06k at 32²",
        Asked({"resolution": {
            str(r): {"data.resolution": r, "network.attention": (r // 2,)} for r in (8, 16, 32)
        }}),
        Asked({"data.resolution": (4, 8)}, NARROW),
    ),
    Row(
        "classes",
        "Does the number of classes matter?",
        f"{GU}: 1, 2, 5 and 10 classes of CIFAR-10",
        "no number that we verified",
        Asked({"data.classes": (1, 2, 5, 10)}, search={"n_high": 5000}),
        Asked({"data.classes": (1, 10)}, NARROW, {"n_high": 128}),
    ),
    Row(
        "mix",
        "Does diversity within a class matter: a share α of its images from a second source?",
        f"{GU}: α from 0 to 1; the second source is yours: --set data.mix.data.path=FILE.npz",
        "no number that we verified",
        Asked(
            {"data.mix.share": (0, 0.25, 0.5, 0.75, 1)},
            {
                "data.mix.share": 0,
                "data.mix.data": {"kind": "arrays", "path": "", "resolution": 32},
            },
            {"n_high": 5000},
        ),
        Asked({"data.mix.share": (0, 0.5)}, {
            **NARROW, "data.mix.share": 0, "data.mix.data": {"kind": "mnist5k", "resolution": 8}
        }),
    ),
    Row(
        "batch",
        "Does the batch matter at a fixed ratio of learning rate to batch (and a fixed EMA decay "
        "per step)?",
        f"{GU}: batches of 128 to 896",
        "no number that we verified",
        Asked({"trainer.batch": (128, 384, 640, 896)}, {"trainer.lr_batch": 512}),
        Asked({"trainer.batch": (32, 64)}, {**NARROW, "trainer.lr_batch": 64}),
    ),
    Row(
        "weight-decay",
        "Does weight decay prevent memorization?",
        f"{GU}: L2 in the gradient, 0 and 1e-5 to 1e-1",
        "no number that we verified",
        Asked({"trainer.weight_decay": (0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)}),
        Asked({"trainer.weight_decay": (0, 1e-2)}, NARROW),
    ),
    Row(
        "ema",
        "Does averaging the weights matter?",
        f"{GU}: decay per step from 0.99929 to 0 (none)",
        "no number that we verified",
        Asked({"trainer.ema_decay": (0.99929, 0.99, 0.9, 0)}),
        Asked({"trainer.ema_decay": (0.98, 0)}, NARROW),
    ),
    Row(
        "length",
        "Does longer training memorize more training images?",
        "epochs at every N; the onset of copies at a number of steps proportional to N is that of "
        "Bonnaire et al. 2025 (arXiv 2505.17638)",
        "EMM grows with the length, until the network's capacity ends it",
        Asked({"trainer.length": (10_000, 20_000, 40_000)}),
        # the rate rises over a quarter of each: with the warm-up of 400 steps, one of 200 would
        # never reach it
        Asked({"length": {
            "200": {"trainer.length": 200, "trainer.warmup": 50},
            "400": {},
            "800": {"trainer.length": 800, "trainer.warmup": 200},
        }}, NARROW),
    ),
    Row(
        "dit",
        "Does a transformer memorize as a convolutional network does?",
        "network of Peebles & Xie 2022 (arXiv 2212.09748), in the training recipe of the paper",
        OPEN,
        Asked({"network": {
            "ddpmpp": {},
            "DiT-S": {"network.kind": "dit", "network.size": "S"},
            "DiT-B": {"network.kind": "dit", "network.size": "B"},
        }}),
        Asked({"network": {"ddpmpp": {}, "dit": SMALL_DIT}}, NARROW),
    ),
    Row(
        "flow",
        "Does flow matching memorize as diffusion does?",
        "laws of arXiv 2210.02747 and 2403.03206, in the training recipe of the paper",
        OPEN,
        Asked({"law": {
            "vp": {}, "flow": {"diffusion.kind": "flow"},
            "flow logit-normal": {"diffusion.kind": "flow", "diffusion.times": "logit_normal"},
        }}),
        Asked({"law": {
            "edm": {},
            "flow": {
                "diffusion.kind": "flow",
                "diffusion.times": "logit_normal",
                "diffusion.t_mean": -1.3,
            },
        }}, NARROW),
    ),
    Row(
        "augment",
        "Do random mirror images in training prevent copies?",
        "random horizontal flips; a mirrored copy counts as a copy",
        OPEN,
        Asked({"trainer.augment": ("none", "flip")}),
        Asked({"trainer.augment": ("none", "flip")}, NARROW),
    ),
    Row(
        "duplicates",
        "Do duplicated training images raise memorization?",
        "exact copies; N counts them, and the second neighbour is another image",
        OPEN,
        Asked({"copies": {
            "none": {},
            "10% x2": {"data.duplicates.share": 0.1, "data.duplicates.multiplicity": 2},
            "10% x10": {"data.duplicates.share": 0.1, "data.duplicates.multiplicity": 10},
        }}),
        Asked({"copies": {
            "none": {},
            "all x2": {"data.duplicates.share": 1, "data.duplicates.multiplicity": 2},
        }}, NARROW),
    ),
    Row(
        "loss",
        "Does the noise law and loss weight matter: VP, VE or EDM?",
        f"{GU} offers all three; table 1 of Karras et al. 2022 (arXiv 2206.00364)",
        OPEN,
        Asked({"law": {
            "vp": {},
            "ve": {"diffusion.kind": "ve"},
            "edm": {"diffusion.kind": "edm"},
        }}),
        Asked({"law": {
            "edm narrow": {},
            "edm": {
                "diffusion.P_mean": -1.2, "diffusion.P_std": 1.2, "diffusion.stratified": False,
            },
        }}, NARROW),
    ),
    Row(
        "noise-draws",
        "Does it matter how many noise draws each training image has: a few for good, or new ones "
        "always?",
        "m of George, Veiga and Macris 2025 (arXiv 2502.00336), whose random features memorize more "
        "with more draws where they are many for N; in the training recipe of the paper",
        OPEN,
        Asked({"draws": draws(1, 10, 100, 1000)}),
        Asked({"draws": draws(10, 30, 100)}, NARROW),
    ),
    Row(
        "noise-level",
        "Does it matter at which noise levels a model is trained: at low, middle or high ones?",
        "P_mean of Karras et al. 2022 (arXiv 2206.00364), which is -1.2 there",
        OPEN,
        Asked({"diffusion.P_mean": (-2.4, -1.2, 0)}, {"diffusion.kind": "edm"}),
        Asked({"diffusion.P_mean": (-2, -1.3, -0.6)}, NARROW),
    ),
    Row(
        "noise-spread",
        "Does it matter how widely the noise levels of training are spread?",
        "P_std of Karras et al. 2022 (arXiv 2206.00364), which is 1.2 there",
        OPEN,
        Asked({"diffusion.P_std": (0.6, 1.2, 2.4)}, {"diffusion.kind": "edm"}),
        Asked({"diffusion.P_std": (0.25, 0.5, 1)}, NARROW),
    ),
    Row(
        "optimizer",
        "Does the optimizer matter: Adam, AdamW or SGD?",
        "the paper's recipe with another optimizer; SGD with momentum 0.9 and a learning rate of "
        "its own",
        OPEN,
        Asked({"optimizer": {
            "adam": {},
            "adamw": {"trainer.optimizer": "adamw", "trainer.weight_decay": 1e-2},
            "sgd": {"trainer.optimizer": "sgd", "trainer.lr": 0.05},
        }}),
        Asked({"optimizer": {
            "adam": {},
            "adamw": {"trainer.optimizer": "adamw", "trainer.weight_decay": 1e-2},
        }}, NARROW),
    ),
    Row(
        "pair",
        "From how many images on do two models of disjoint images draw the same image from the same "
        "noise?",
        "Kadkhodaie et al. 2023 (arXiv 2310.02557): two models of N images each, the same latents",
        "on faces of 80×80: none the same at small N, where both copy; nearly all at N = 100,000",
        Asked({"network.width": (128, 256)}, measurement=PAIR, search={"targets": (0.1,)}),
        Asked({"network.width": (4, 8)}, measurement=PAIR, search={
            "targets": (0.1,), "n_high": 512,
        }),
    ),
]  # fmt: skip


def _cifar10(row: Row) -> SearchSpace:
    asked = row.cifar10
    return SearchSpace(
        name=f"cifar10-{row.name}",
        question=row.question,
        source=row.source,
        expectation=row.expectation,
        cost="GPU weeks",
        base=with_fields(PAPER, asked.settings),
        vary=asked.vary,
        search=Search(**{"n_low": 250, "n_high": 16_000, **asked.search}),
        measurement=PAPER_MEASUREMENT.model_copy(update=asked.measurement),
    )


def _digits(row: Row) -> SearchSpace:
    asked = row.digits
    return SearchSpace(
        name=f"digits-{row.name}",
        question=row.question,
        source="the same question on scikit-learn's digits, at a fixed number of steps "
        f"({row.source})",
        expectation=_elsewhere(row),
        cost="minutes on 2 CPU cores",
        base=with_fields(DIGITS, asked.settings),
        vary=asked.vary,
        search=Search(**{"n_low": 8, "n_high": 256, "precision": 0.2, **asked.search}),
        measurement=DIGITS_MEASUREMENT.model_copy(update=asked.measurement),
    )


def _elsewhere(row: Row) -> str:
    """What is known of other data."""
    if row.expectation == OPEN:
        return "unknown"
    is_told = row.expectation.startswith("on ") or "CIFAR-10" in row.expectation
    return row.expectation if is_told else f"on CIFAR-10: {row.expectation}"


YOURS = SearchSpace(
    name="digits",
    question="How many digits does one configuration memorize? "
    "The space for a network or trainer of your own",
    source="docs/custom.md",
    expectation="depends on what is put into it",
    cost="minutes on 2 CPU cores",
    base=DIGITS,
    vary={},
    search=Search(n_low=8, n_high=256, precision=0.15),
    measurement=DIGITS_MEASUREMENT,
)

# Published: 92.0 %, from a figure (digitised to ±0.7 points) and of one seed. Where it was
# measured, on small networks and digits, seeds differ by about 0.3 on the logit: 2.2 points here;
# 10,000 samples add 0.3. Two standard deviations on the logit and the digitisation: 86 to 96 %.
PAPER_1K = SearchSpace(
    name="paper-1k",
    question="Does this code memorize what the paper's did, at N = 1,000?",
    source=f"{GU}, the basic experiment: DDPM++ of width 128, unconditional CIFAR-10, "
    "40,000 epochs",
    expectation="R_mem of 92.0 % at N = 1,000: emm trial paper-1k --config base --n 1000",
    cost="GPU days",
    base=PAPER,
    vary={},
    search=Search(n_low=250, n_high=16_000),
    measurement=Measurement(protocol="paper"),
    expected=Expected(n=1000, r_mem_low=0.86, r_mem_high=0.96),
)

SPACES: dict[str, SearchSpace] = {
    space.name: space for space in [*map(_digits, ROWS), YOURS, *map(_cifar10, ROWS), PAPER_1K]
}
