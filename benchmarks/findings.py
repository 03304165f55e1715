"""The page of findings, docs/findings.md: claims of the literature, each against a sweep of ours.

    python -m benchmarks.findings keep NAME DIR   # what a finished sweep says -> benchmarks/findings/NAME.json
    python -m benchmarks.findings page            # writes the page and its figures from what is kept; trains nothing

What is kept is that of `emm report DIR --json`, without what the page does not show.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sweep.report.style import COLOURS, MARKERS, STYLE, WIDTH, as_png, numbers

ROOT = Path(__file__).parent.parent
KEPT, PAGE, FIGURES = ROOT / "benchmarks/findings", ROOT / "docs/findings.md", ROOT / "docs/figures"
GU = "Gu et al. 2023, arXiv 2310.02664"
BONNAIRE = "Bonnaire et al. 2025, arXiv 2505.17638"
CHANCE = 0.05  # of a 95 % interval that excludes 1 though there is no effect

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """`more` memorizes more than `less`, at a target; `source`: who says so, None of an open
    question, which is then asked of both sides."""

    says: str
    more: str
    less: str
    source: str | None
    target: float = 0.9


@dataclass(frozen=True)
class Question:
    """One sweep: its kept summary, the command that makes it, what limits it."""

    name: str
    title: str
    command: str
    claims: tuple[Claim, ...]
    limits: str


def keep(name: str, directory: str) -> Path:
    """Raises UserError if there is no sweep."""
    from sweep.analysis.summary import summarize
    from sweep.store.places import place

    summary = summarize(place(directory).storage)
    told = summary.as_json()
    fields = ("name", "verdict", "reason", "emm", "emm_low", "emm_high", "profile")
    of_trials = ("n", "seed", "r_mem", "pair_agreement")
    configurations = [
        {
            **{field: one[field] for field in fields},
            "trials": [
                {field: trial.get(field) for field in of_trials if trial.get(field) is not None}
                for trial in one["trials"]
                if trial["state"] == "complete"
            ],
        }
        for one in told["configurations"]
    ]
    seconds = sum(result.seconds for study in summary.studies for result in study.results)
    content = {
        "sweep": told["sweep"],
        "target": summary.space.search.target,
        "question": summary.space.question,
        "hours": seconds / 3600,
        "configurations": configurations,
        "contrasts": told["contrasts"],
        "contrasts_by_target": told["contrasts_by_target"],
    }
    file = KEPT / f"{name}.json"
    file.write_text(json.dumps(_rounded(content), indent=None, separators=(",", ":")) + "\n")
    return file


def _rounded(value: Any) -> Any:
    """Four digits are more than any of it is known to."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- what the sweeps say of the claims


Ratio = tuple[float | None, float | None, float | None]  # and the ends of its interval, None: open


def contrast_of(kept: Json, claim: Claim) -> Ratio | None:
    """The EMM of `more` over that of `less`, and its 95 % interval; None where it is not known."""
    found = list(kept["contrasts"]) if claim.target == kept["target"] else []
    for one in kept["contrasts_by_target"]:
        if one["target"] == claim.target:
            found += one["contrasts"]
    for one in found:
        if (one["b"], one["a"]) == (claim.more, claim.less):
            return one["ratio"], one["low"], one["high"]
        if (one["a"], one["b"]) == (claim.more, claim.less):
            return 1 / one["ratio"], 1 / one["high"], 1 / one["low"]
    return _bound(kept, claim) if claim.target == kept["target"] else None


def _bound(kept: Json, claim: Claim) -> Ratio | None:
    """Where one EMM lies beyond the range of N: from the ends of both intervals, which is more
    careful than 95 %."""
    found = {one["name"]: one for one in kept.get("configurations", ())}
    if not {claim.more, claim.less} <= found.keys():
        return None
    more, less = found[claim.more], found[claim.less]
    beyond = {"below_range", "above_range"}
    if {more["verdict"], less["verdict"]} <= beyond or not {
        more["verdict"],
        less["verdict"],
    } & beyond:
        return None
    if more["verdict"] == "above_range" or less["verdict"] == "below_range":
        return None, more["emm_low"] / less["emm_high"], None
    return None, None, more["emm_high"] / less["emm_low"]


def verdict(claim: Claim, ratio: Ratio | None) -> str:
    if ratio is None:
        return "not known"
    low, high = ratio[1] or 0.0, ratio[2] or float("inf")
    if low <= 1 <= high:
        return "not at this scale" if claim.source else "not told apart"
    if claim.source is None:
        return "a difference"
    return "found again" if low > 1 else "opposite"


def _emm_text(kept: Json, name: str, target: float) -> str:
    (one,) = (one for one in kept["configurations"] if one["name"] == name)
    at = one
    if target != kept["target"]:
        (at,) = (part for part in one["profile"] if part["target"] == target)
    elif one["verdict"] in ("below_range", "above_range"):
        return str(one["verdict"])
    if at["emm"] is None:
        return "–"
    ends = [("" if end is None else f"{end:.3g}") for end in (at["emm_low"], at["emm_high"])]
    return f"{at['emm']:.3g} [{', '.join(ends)}]"


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return "–"
    middle, low, high = ratio
    if middle is None:
        return f"> {low:.2f}" if low is not None else f"< {high:.2f}"
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def rows_of(question: Question, kept: Json) -> Iterator[tuple[str, ...]]:
    for claim in question.claims:
        ratio = contrast_of(kept, claim)
        shown = _ratio_text(ratio)
        emms = [_emm_text(kept, name, claim.target) for name in (claim.more, claim.less)]
        yield (
            f"{claim.says} ({claim.source or 'open'})",
            f"{claim.target:g}",
            f"{claim.more}: {emms[0]}",
            f"{claim.less}: {emms[1]}",
            shown,
            f"**{verdict(claim, ratio)}**",
        )


@matplotlib.rc_context(STYLE)
def figure_of(kept: Json) -> Figure:
    """R_mem of every trial against N, and at the target the EMM of every configuration with its
    interval; open: how often two models of disjoint images draw the same."""
    figure = Figure((1.6 * WIDTH, 2.5), layout="constrained")
    axes = figure.add_subplot()
    sizes = [trial["n"] for one in kept["configurations"] for trial in one["trials"]]
    for number, one in enumerate(kept["configurations"]):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        points = sorted((trial["n"], trial["r_mem"]) for trial in one["trials"])
        n, r_mem = np.array(points, dtype=float).T
        axes.plot(n, r_mem, marker, color=colour, ms=3, alpha=0.7)
        axes.plot([], [], marker, color=colour, ms=3, label=f"{one['name']}")
        pairs = [trial for trial in one["trials"] if "pair_agreement" in trial]
        if pairs:
            same = [trial["pair_agreement"] for trial in pairs]
            style: Any = {"color": colour, "mfc": "white", "ms": 3, "label": "same image"}
            axes.plot([trial["n"] for trial in pairs], same, marker, **style)
        if one["emm"] is not None:
            low, high = one["emm_low"] or min(sizes), one["emm_high"] or max(sizes)
            height = 1.04 + 0.03 * number
            axes.plot([low, high], [height, height], color=colour, lw=1.5)
            axes.plot(one["emm"], height, "|", color=colour, ms=5)
    axes.axhline(kept["target"], color="black", ls="--", lw=0.6)
    left, right = min(sizes) / 1.1, max(sizes) * 1.1
    top = 1.06 + 0.03 * len(kept["configurations"])
    axes.set(xscale="log", xlim=(left, right), ylim=(-0.03, top))
    axes.set(xlabel="number of training images N", ylabel=r"$\mathrm{R_{mem}}$")
    numbers(axes.xaxis, left, right)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


# ---------------------------------------------------------------- the page

HEAD = ("claim (source)", "target", "EMM", "EMM of the other", "ratio", "verdict")


INTRODUCTION = """# Findings

Claims of the literature about what is memorized, each asked of small real trainings by `emm run` alone; this page is written
by `python -m benchmarks.findings page` from the summaries in `benchmarks/findings/`. A verdict is a rule: *found again* where
the 95 % interval of the ratio of EMMs lies above 1, *opposite* where it lies below, *not at this scale* where it holds 1: then
it can't be told here, which is not to say that there is no effect.

{n_contrasts} contrasts were looked at; were there no effect at all, about {by_chance:.0f} of them would exclude 1.

"""


def page() -> str:
    """Of the questions whose sweep is kept; draws their figures."""
    kept = {
        question.name: json.loads((KEPT / f"{question.name}.json").read_text())
        for question in QUESTIONS
        if (KEPT / f"{question.name}.json").exists()
    }
    asked = [question for question in QUESTIONS if question.name in kept]
    n_contrasts = sum(
        contrast_of(kept[question.name], claim) is not None
        for question in asked
        for claim in question.claims
    )
    parts = [INTRODUCTION.format(n_contrasts=n_contrasts, by_chance=CHANCE * n_contrasts)]
    for question in asked:
        parts.append(_section(question, kept[question.name]))
    return "".join(parts)


def _section(question: Question, kept: Json) -> str:
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"{question.name}.png").write_bytes(as_png(figure_of(kept), 110))
    rows = [HEAD, tuple("---" for _ in HEAD), *rows_of(question, kept)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    n_trials = sum(len(one["trials"]) for one in kept["configurations"])
    pairs = _pairs(kept)
    return (
        f"## {question.title}\n\n![R_mem against N](figures/{question.name}.png)\n\n{table}\n\n{pairs}"
        f"`{question.command}`: {n_trials} trials, {60 * kept['hours']:.0f} minutes of one core. "
        f"{question.limits}\n\n"
    )


BANDS = (0.9, 1.01), (0.5, 0.9), (0.1, 0.5), (0, 0.1)  # of R_mem


def _pairs(kept: Json) -> str:
    """How often two models of disjoint images draw the same image, by how much the first copies;
    empty of a sweep without second models."""
    trials = [
        (one["name"], trial)
        for one in kept["configurations"]
        for trial in one["trials"]
        if "pair_agreement" in trial
    ]
    if not trials:
        return ""
    rows = [("R_mem of the trial", "trials", "N", "same image from the same noise, mean and range")]
    rows.append(("---",) * 4)
    for low, high in BANDS:
        inside = [trial for _, trial in trials if low <= trial["r_mem"] < high]
        if inside:
            shares, sizes = ([trial[name] for trial in inside] for name in ("pair_agreement", "n"))
            mean = f"{np.mean(shares):.3f} ({min(shares):.3g} to {max(shares):.3g})"
            band = f"{low:g} to {min(high, 1):g}"
            rows.append((band, str(len(inside)), f"{min(sizes)} to {max(sizes)}", mean))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n"


SEEDS = "Seeds differ as much as many effects: what is not told apart may still be different by a third."

QUESTIONS = (
    Question(
        "width",
        "Does a wider network memorize more?",
        "emm run docs/examples/widths.yaml --targets .5",
        (
            Claim("width 8 memorizes more than width 4", "width=8", "width=4", GU),
            Claim("width 12 more than 8", "width=12", "width=8", GU),
            Claim("width 16 more than 12", "width=16", "width=12", GU),
            Claim("width 16 more than 8", "width=16", "width=8", GU),
            Claim("width 16 more than 4", "width=16", "width=4", GU),
            Claim("width 8 more than width 4", "width=8", "width=4", GU, 0.5),
            Claim("width 12 more than 8", "width=12", "width=8", GU, 0.5),
        ),
        "Digits of 8×8, 400 steps for every N.",
    ),
    Question(
        "labels",
        "Do labels raise memorization, and do they have to mean something?",
        "emm run digits-labels --targets .5",
        (
            Claim("true labels raise it", "labels=true", "labels=none", GU),
            Claim("random labels raise it as well", "labels=random 10", "labels=none", GU),
            Claim("random labels as true ones", "labels=random 10", "labels=true", None),
            Claim("true labels raise it", "labels=true", "labels=none", GU, 0.5),
            Claim("random as true", "labels=random 10", "labels=true", None, 0.5),
        ),
        SEEDS,
    ),
    Question(
        "unique",
        "A label of its own for every image",
        "emm run digits-unique --targets .5",
        (Claim("unique labels raise it", "labels=unique", "labels=none", GU),),
        SEEDS,
    ),
    Question(
        "skip-resolution",
        "Skip connections of which resolution?",
        "emm run digits-skip-resolution",
        (
            Claim("those of the highest resolution matter most", "skips=8x8", "skips=4x4", GU),
            Claim("all are better than the highest alone", "skips=all", "skips=8x8", None),
        ),
        "Two resolutions, 8×8 and 4×4.",
    ),
    Question(
        "dit",
        "A transformer or a convolutional network?",
        "emm run digits-dit",
        (Claim("the U-Net memorizes more", "network=ddpmpp", "network=dit", None),),
        "One transformer, chosen to train well in as many steps; parameters are not matched.",
    ),
    Question(
        "flow",
        "Flow matching or diffusion?",
        "emm run digits-flow",
        (Claim("flow memorizes more than EDM", "law=flow", "law=edm", None),),
        SEEDS,
    ),
    Question(
        "embedding",
        "Positional or Fourier time embedding?",
        "emm run digits-embedding",
        (Claim("positional more", "time_embedding=positional", "time_embedding=fourier", GU),),
        SEEDS,
    ),
    Question(
        "depth",
        "Does depth matter?",
        "emm run digits-depth",
        (Claim("two blocks per resolution more than one", "depth=2", "depth=1", None),),
        "The paper finds that EMM is not monotone in the depth, from 2 to 12; two values can't show that.",
    ),
    Question(
        "resolution",
        "Are smaller images memorized more?",
        "emm run digits-resolution",
        (Claim("4×4 more than 8×8", "resolution=4", "resolution=8", GU),),
        "The rule is stricter where images lie closer together, which they do at 4×4.",
    ),
    Question(
        "classes",
        "Does the number of classes matter?",
        "emm run digits-classes",
        (Claim("one class more than ten", "classes=1", "classes=10", None),),
        "Images of one class lie closer together, where the rule is stricter.",
    ),
    Question(
        "weight-decay",
        "Does weight decay prevent memorization?",
        "emm run digits-weight-decay",
        (Claim("without decay more", "weight_decay=0", "weight_decay=0.01", None),),
        SEEDS,
    ),
    Question(
        "ema",
        "Does averaging the weights matter?",
        "emm run digits-ema",
        (Claim("averaged more than not", "ema_decay=0.98", "ema_decay=0", None),),
        SEEDS,
    ),
    Question(
        "batch",
        "Does the batch matter at a fixed ratio of rate to batch?",
        "emm run digits-batch",
        (Claim("the smaller batch more", "batch=32", "batch=64", None),),
        "At a fixed number of steps: the larger batch sees twice as many images.",
    ),
    Question(
        "augment",
        "Do random mirror images prevent copies?",
        "emm run digits-augment",
        (Claim("without mirroring more", "augment=none", "augment=flip", None),),
        "With mirror images, a mirrored copy counts as one.",
    ),
    Question(
        "duplicates",
        "Do duplicated images raise memorization?",
        "emm run digits-duplicates",
        (Claim("each image twice more", "copies=all x2", "copies=none", None),),
        "N counts the copies.",
    ),
    Question(
        "optimizer",
        "Adam or AdamW?",
        "emm run digits-optimizer",
        (Claim("Adam more than AdamW", "optimizer=adam", "optimizer=adamw", None),),
        SEEDS,
    ),
    Question(
        "loss",
        "Does the noise law matter?",
        "emm run digits-loss",
        (Claim("the wider law more", "law=edm", "law=edm narrow", None),),
        SEEDS,
    ),
    Question(
        "noise-draws",
        "How many noise draws does a training image need?",
        "emm run digits-noise-draws",
        (
            Claim("new draws always more than ten for good", "draws=new", "draws=10", None),
            Claim("more than thirty", "draws=new", "draws=30", None),
            Claim("more than a hundred", "draws=new", "draws=100", None),
        ),
        SEEDS,
    ),
    Question(
        "skip-count",
        "How many skip connections does memorization need?",
        "emm run digits-skip-count",
        (
            Claim("one more than none", "skips=1", "skips=0", GU),
            Claim("all four more than one", "skips=4", "skips=1", None),
        ),
        "Removed connections are those farthest from the input.",
    ),
    Question(
        "length",
        "Does longer training memorize more?",
        "emm run digits-length --targets .5",
        (
            Claim("400 steps more than 200", "length=400", "length=200", BONNAIRE),
            Claim("800 steps more than 400", "length=800", "length=400", BONNAIRE),
            Claim("400 steps more than 200", "length=400", "length=200", BONNAIRE, 0.5),
            Claim("800 steps more than 400", "length=800", "length=400", BONNAIRE, 0.5),
        ),
        "They find that copies begin after a number of steps proportional to N: where nothing else ends it, "
        "twice the steps would be twice the EMM. The rate decays over the same share of each length.",
    ),
    Question(
        "laws",
        "EDM, VP or flow matching, each as its paper has it?",
        "emm run docs/examples/laws.yaml --targets .5",
        (
            Claim("VP more than EDM", "law=vp", "law=edm", None),
            Claim("flow more than EDM", "law=flow", "law=edm", None),
            Claim(
                "logit-normal times more than uniform", "law=flow logit-normal", "law=flow", None
            ),
            Claim("VP more than EDM", "law=vp", "law=edm", None, 0.5),
            Claim("flow more than EDM", "law=flow", "law=edm", None, 0.5),
            Claim(
                "logit-normal times more than uniform",
                "law=flow logit-normal",
                "law=flow",
                None,
                0.5,
            ),
        ),
        "The same rate and steps for all, chosen for EDM.",
    ),
    Question(
        "parameters",
        "A U-Net, a transformer or a perceptron, of as many parameters?",
        "emm run docs/examples/parameters.yaml",
        (
            Claim("the U-Net more than the transformer", "network=ddpmpp", "network=dit", None),
            Claim("the U-Net more than the perceptron", "network=ddpmpp", "network=mlp", None),
        ),
        "45,700, 53,500 and 54,600 parameters, 2,400 steps, all at a rate of 2e-2: of 2e-3 to 2e-2 that "
        "at which transformer and perceptron copy most at N = 8.",
    ),
    Question(
        "mnist",
        "Width again, on MNIST with a perceptron",
        "emm run docs/examples/mnist.yaml --targets .5",
        (
            Claim("width 256 more than 128", "width=256", "width=128", GU),
            Claim("width 512 more than 256", "width=512", "width=256", GU),
            Claim("width 256 more than 128", "width=256", "width=128", GU, 0.5),
            Claim("width 512 more than 256", "width=512", "width=256", GU, 0.5),
        ),
        "14×14, 1,500 steps for every N.",
    ),
    Question(
        "photographs",
        "Width again, on colour photographs",
        "emm run docs/examples/photographs.yaml --targets .5",
        (
            Claim("width 16 more than 8", "width=16", "width=8", GU),
            Claim("width 16 more than 8", "width=16", "width=8", GU, 0.5),
        ),
        "Patches of five photographs at 8×8; three others lie so dense that a faithful copy fails the rule.",
    ),
    Question(
        "warm-start",
        "Does a model that was trained on other images before memorize more?",
        "emm run warm_start.py --targets .5",
        (
            Claim("pretrained more than from scratch", "start=pretrained", "start=scratch", None),
            Claim(
                "pretrained more than from scratch", "start=pretrained", "start=scratch", None, 0.5
            ),
        ),
        "Before: 1,200 steps on 4,000 images of MNIST at 8×8; then the same 400 steps for both.",
    ),
    Question(
        "pair",
        "Do two models of disjoint images draw the same image?",
        "emm run digits-pair",
        (Claim("width 8 memorizes more than width 4", "width=8", "width=4", GU),),
        "By chance one in 500 would be the same: each image is compared with the 500 of the other "
        "model. Faces of 80×80 (Kadkhodaie et al. 2023, arXiv 2310.02557) need 100,000 images for what "
        "small digits show from N = 64 on.",
    ),
)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        print(keep(*sys.argv[2:]))
    else:
        PAGE.write_text(page())
