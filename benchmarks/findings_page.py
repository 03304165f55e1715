"""The page of findings and its figures, from what is kept; see benchmarks/findings.py."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims import BONNAIRE, QUESTIONS, Claim, Question
from benchmarks.findings import (
    KEPT,
    ROOT,
    Json,
    Ratio,
    contrast_of,
    hold_together,
    p_value,
    ratio_text,
    rows_of,
    verdict,
)
from benchmarks.replay import truth
from search_spaces.find import find_space
from search_spaces.space import SearchSpace
from sweep.report.style import COLOURS, MARKERS, STYLE, WIDTH, as_png, numbers
from sweep.search.belief import HEAVY, Belief, Observation, base_prior, belief

PAGE, FIGURES = ROOT / "docs/findings.md", ROOT / "docs/figures"
FIRST = KEPT / "first.json"  # the ratios of a first asking, by question and claim
CHANCE = 0.05  # of a 95 % interval that excludes 1 though there is no effect
VERDICTS = {
    "found again": COLOURS[0],
    "opposite": COLOURS[1],
    "a difference": COLOURS[2],
    "not at this scale": "grey",
    "not told apart": "grey",
}
OUTER = 1 / 6, 6  # ends of the ratios that are shown


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


@matplotlib.rc_context(STYLE)
def overview(answers: Sequence[tuple[Claim, Ratio]]) -> Figure:
    """The ratio of EMMs of every claim with its 95 % interval; an arrow where an end is open."""
    figure = Figure((2 * WIDTH, 0.4 + 0.17 * len(answers)), layout="constrained")
    axes = figure.add_subplot()
    for row, (claim, ratio) in enumerate(answers):
        colour, (middle, low, high) = VERDICTS[verdict(claim, ratio)], ratio
        ends = np.clip([low or OUTER[0], high or OUTER[1]], *OUTER)
        axes.plot(ends, [row, row], color=colour, lw=1.5)
        if middle is not None:
            axes.plot(middle, row, "o", color=colour, ms=3.5)
        if low is None or low < OUTER[0]:
            axes.plot(OUTER[0], row, "<", color=colour, ms=4)
        if high is None or high > OUTER[1]:
            axes.plot(OUTER[1], row, ">", color=colour, ms=4)
    axes.axvline(1, color="black", lw=0.6)
    names = [
        f"{claim.more.replace('_', ' ')} : {claim.less.partition('=')[2]}" for claim, _ in answers
    ]
    axes.set_yticks(range(len(answers)), names)
    axes.set(xscale="log", xlim=(OUTER[0] / 1.1, OUTER[1] * 1.1), ylim=(len(answers) - 0.4, -0.6))
    axes.set(xlabel="EMM of the first : EMM of the second, with its 95 % interval")
    numbers(axes.xaxis, *axes.get_xlim())
    for word, colour in VERDICTS.items():
        if word != "not told apart":
            label = "not told apart" if colour == "grey" else word
            axes.plot([], [], "o-", color=colour, ms=3.5, label=label)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


# ---------------------------------------------------------------- the page

Answer = tuple[Question, Claim, Ratio]

HEAD = ("claim (source)", "target", "EMM", "EMM of the other", "ratio", "verdict")


INTRODUCTION = """# Findings

Claims of the literature about what is memorized, and open questions, each asked of small real trainings by `emm run` alone;
this page is written by `python -m benchmarks.findings page` from the summaries in `benchmarks/findings/`. A verdict is a rule:
*found again* where the 95 % interval of the ratio of EMMs lies above 1, *opposite* where it lies below, *not at this scale*
where it holds 1: then it can't be told here, which is not to say that there is no effect. Where nobody claims anything, it is
*a difference* or *not told apart*.

{n_contrasts} contrasts were looked at; were there no effect at all, about {by_chance:.0f} of them would exclude 1. *Alone* are
those of them that do, but no longer when all are judged together (at a false discovery rate of 5 %). Trials ran beside other
work; their minutes are wall time. Configurations that several questions share were trained once (`--reuse DIR`), the one that
most share to a finer precision (`emm run digits-width --only width=8 --precision .07 --set search.max_trials=30`). Every
command also needs `--out DIR`, and that of a file with a module beside it is typed where both lie, in `docs/examples`.

**One configuration stands in {n_shared} of the contrasts** ({shared}): were it larger than it is by chance, all of these
would be moved together, and to judge them together does not see that. The bank has it with other seeds ([bank.md](bank.md),
demo-width8): there the mean over seeds crosses .9 at {bank:.1f}.

![EMM of the first over EMM of the second](figures/overview.png)

"""
NEW = """## Published nowhere that we know of

No EMM of these is known to us from elsewhere, and they were told apart here, together with all others. (Other questions of the
same things were asked: An et al. 2024, arXiv 2410.21273, of how a U-Net and a DiT generalize.)

"""


def page() -> str:
    """Of the questions whose sweep is kept; draws their figures."""
    kept = {
        question.name: json.loads((KEPT / f"{question.name}.json").read_text())
        for question in QUESTIONS
        if (KEPT / f"{question.name}.json").exists()
    }
    asked = [question for question in QUESTIONS if question.name in kept]
    answers = [
        (question, claim, ratio)
        for question in asked
        for claim in question.claims
        if (ratio := contrast_of(kept[question.name], claim)) is not None
    ]
    together = hold_together(
        [p_value(kept[question.name], claim, ratio) for question, claim, ratio in answers]
    )
    holds = {
        (question.name, claim)
        for (question, claim, _), does in zip(answers, together, strict=True)
        if does
    }
    FIGURES.mkdir(exist_ok=True)
    of_targets = [
        (c, ratio) for question, c, ratio in answers if c.target == kept[question.name]["target"]
    ]
    _draw("overview", overview(of_targets))
    parts = [_introduction(kept, answers), NEW]
    parts += [
        f"* {question.title} {_answer(claim, ratio)}\n"
        for question, claim, ratio in answers
        if question.is_new and (question.name, claim) in holds
    ]
    parts += ["\n", *(_section(question, kept[question.name], holds) for question in asked)]
    parts += [_who_is_copied(kept), _onset(kept), _asked_twice(answers), _judged_again(kept, asked)]
    return "".join(parts)


def _introduction(kept: Mapping[str, Json], answers: Sequence[Answer]) -> str:
    keys = [
        {one["key"]: one for one in kept[question.name]["configurations"] if one["name"] in names}
        for question, claim, _ in answers
        for names in [(claim.more, claim.less)]
    ]
    ((key, n_shared),) = Counter(key for both in keys for key in both).most_common(1)
    emms = [both[key]["emm"] for both in keys if key in both]
    shared = f"EMM {min(emms):.3g} to {max(emms):.3g}, by the trials of it that each sweep has"
    n = len(answers)
    bank = truth("demo-width8", "mean")
    return INTRODUCTION.format(
        n_contrasts=n, by_chance=CHANCE * n, n_shared=n_shared, shared=shared, bank=bank
    )


def _draw(name: str, figure: Figure) -> None:
    (FIGURES / f"{name}.png").write_bytes(as_png(figure, 110))


def _answer(claim: Claim, ratio: Ratio) -> str:
    """In words, of two that were told apart."""
    middle, low, high = ratio
    both = f"`{claim.more}` : `{claim.less}`"
    if middle is None:
        return f"{both} {f'> {low:.2f}' if low is not None else f'< {high:.2f}'}, at R_mem = {claim.target:g}."
    return f"{both} = {middle:.2f} [{low:.2f}, {high:.2f}], at R_mem = {claim.target:g}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _section(question: Question, kept: Json, holds: Collection[tuple[str, Claim]]) -> str:
    _draw(question.name, figure_of(kept))
    n_trials = sum(len(one["trials"]) for one in kept["configurations"])
    density = _density(kept) if question.with_density else ""
    return (
        f"## {question.title}\n\n![R_mem against N](figures/{question.name}.png)\n\n"
        f"{_table(HEAD, rows_of(question, kept, holds))}{density}{_pairs(kept)}"
        f"`{question.command}`: {n_trials} trials, {60 * kept['hours']:.0f} minutes of {question.trained_on}{_planned(kept)}. "
        f"{question.limits}\n\n"
    )


def _planned(kept: Json) -> str:
    """What the plan had said of the trials that were trained for this question."""
    told = kept.get("planned")
    if told is None or not told["n_trials"]:
        return ""
    return (
        f"; the {told['n_trials']:.0f} of them that were trained for it took {told['seconds'] / 60:.1f}, "
        f"where `emm plan --measure` had said {told['said'] / 60:.1f}"
    )


def _density(kept: Json) -> str:
    """What the rule makes of how close images lie to each other."""
    head = (
        "configuration",
        "distance of training images",
        "of a copy",
        "R_mem of a copier as blurred",
    )
    rows = [
        (
            one["name"],
            f"{scale['nn_distance']:.0f}",
            f"{scale['median_d1']:.0f}",
            f"{scale['noisy_copier']:.3f}",
        )
        for one in kept["configurations"]
        if (scale := one.get("scale")) and scale["median_d1"] is not None
    ]
    return _table(head, rows) if rows else ""


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
    head = ("R_mem of the trial", "trials", "N", "same image from the same noise, mean and range")
    rows = []
    for low, high in BANDS:
        inside = [trial for _, trial in trials if low <= trial["r_mem"] < high]
        if inside:
            shares, sizes = ([trial[name] for trial in inside] for name in ("pair_agreement", "n"))
            mean = f"{np.mean(shares):.3f} ({min(shares):.3g} to {max(shares):.3g})"
            band = f"{low:g} to {min(high, 1):g}"
            rows.append((band, str(len(inside)), f"{min(sizes)} to {max(sizes)}", mean))
    return _table(head, rows)


# ---------------------------------------------------------------- a first asking, and this one


def deviation(first: Ratio, now: Ratio) -> float | None:
    """By how many standard errors of the difference ln ratio is larger now; None where one of them
    is a bound."""
    (before, *its_ends), (after, *ends) = first, now
    if None in (before, after, *its_ends, *ends):
        return None
    errors = [math.log(high / low) / (2 * 1.96) for low, high in (its_ends, ends)]
    return math.log(after / before) / math.hypot(*errors)


def _asked_twice(answers: Sequence[Answer]) -> str:
    """Of what was asked before, with fewer trials, whose ratios are kept: how it compares."""
    kept = {
        (one["question"], one["more"], one["less"], one["target"]): tuple(one["ratio"])
        for one in json.loads(FIRST.read_text())
    }
    rows, deviations, n_changed = [], [], 0
    for question, claim, now in answers:
        first = kept.get((question.name, claim.more, claim.less, claim.target))
        if first is None:
            continue
        words = [verdict(claim, ratio) for ratio in (first, now)]
        n_changed += words[0] != words[1]
        z = deviation(first, now)
        deviations += [] if z is None else [z]
        rows.append(
            (
                question.name,
                f"{claim.more} : {claim.less}",
                f"{claim.target:g}",
                f"{ratio_text(first)}, {words[0]}",
                f"{ratio_text(now)}, {words[1]}",
                "" if z is None else f"{z:+.1f}",
            )
        )
    if not rows:
        return ""
    head = ("sweep", "ratio", "target", "first", "now", "standard errors between")
    inside = sum(abs(z) < 1.96 for z in deviations)
    spread = np.sqrt(np.mean(np.square(deviations)))
    return (
        "## Asked twice\n\n"
        "All of these were asked before, with fewer trials and on another processor (`benchmarks/findings/first.json`). Were "
        "all intervals honest, and the two askings independent, about 95 % of the differences would be less than 1.96 "
        f"standard errors: {inside} of {len(deviations)} are, and the root of their mean square is {spread:.2f}, of 1 if the "
        "intervals were just as wide as they have to be. They are not quite independent: many of the first trials have "
        "size and seed of one of now, and nearly its R_mem, so that differences are smaller than they would be; and those "
        "that share a configuration move together. "
        f"{n_changed} of {len(rows)} verdicts are others now; none of the first ones counts above.\n\n"
        f"{_table(head, rows)}"
    )


# ---------------------------------------------------------------- under another prior

# the share of noisy configurations that was believed in when these were asked; sweeps that were kept
# since say theirs
HEAVY_THEN = 0.3


def _judged_again(kept: Mapping[str, Json], asked: Sequence[Question]) -> str:
    """How much hangs on what is believed of noise: by the trials of each configuration alone."""
    wider, moved, n_contrasts = [], [], 0
    no_longer, only_now, since = [], [], []
    for question in asked:
        if "noisy_share" in kept[question.name]:
            since.append(question.name)
            continue
        space = _space_of(question)
        if space is None:
            continue
        then, now = {}, {}
        for one in kept[question.name]["configurations"]:
            if one["verdict"] == "found":
                name = one["name"]
                then[name] = _believed(one, space, HEAVY_THEN)
                now[name] = _believed(one, space, HEAVY)
                wider.append(now[name].sd / then[name].sd - 1)
                moved.append(abs(now[name].mean - then[name].mean) / then[name].sd)
        for claim in question.claims:
            is_known = claim.more in then and claim.less in then
            if not is_known or claim.target != space.search.target:
                continue
            n_contrasts += 1
            differed = _differ(then[claim.more], then[claim.less])
            differ = _differ(now[claim.more], now[claim.less])
            if differed and not differ:
                no_longer.append(f"{claim.more} : {claim.less}")
            if differ and not differed:
                only_now.append(f"{claim.more} : {claim.less}")
    later = f" (of {' and '.join(since)}, which were asked since, those of now)" if since else ""
    return (
        "## Judged again\n\n"
        f"When these were asked, a share of {HEAVY_THEN:g} of all configurations was believed to have seeds that disagree "
        f"widely; now it is {HEAVY:g} ([search.md](search.md)), and the numbers above are those of then{later}. By its own "
        f"trials alone the sd of ln EMM of a configuration is {100 * np.median(wider):.0f} % larger under that (median of the "
        f"{len(wider)} that were found, in all other sweeps but the warm start's; at most {100 * max(wider):.0f} %), and its "
        f"EMM moves by at most {max(moved):.2f} sd. Of the {n_contrasts} contrasts of such configurations these exclude 1 "
        f"under {HEAVY_THEN:g} and not under {HEAVY:g}: {', '.join(no_longer) or 'none'}; and these the other way round: "
        f"{', '.join(only_now) or 'none'}.\n"
    )


def _space_of(question: Question) -> SearchSpace | None:
    """That of its command; None if a module makes it, which needs more than is kept."""
    asked = question.command.split()[2]
    if asked.endswith(".py"):
        return None
    return find_space(str(ROOT / asked) if asked.endswith(".yaml") else asked)


def _believed(one: Json, space: SearchSpace, heavy: float) -> Belief:
    search, n_samples = space.search, space.measurement.n_samples
    trials = [Observation(trial["n"], trial["r_mem"], n_samples) for trial in one["trials"]]
    return belief(trials, search.n_low, search.n_high, search.target, base_prior(heavy))


def _differ(one: Belief, other: Belief) -> bool:
    """Whether the 95 % interval of the ratio of their EMMs excludes 1."""
    return abs(one.mean - other.mean) > 1.96 * math.hypot(one.sd, other.sd)


# ---------------------------------------------------------------- what all sweeps say together

Told = tuple[str, Json]  # the name of a question, and what is kept of a configuration


def _distinct(kept: dict[str, Json], field: str) -> Iterator[Told]:
    """Configurations for which `field` is known; of one that several questions ask of, that with
    most trials."""
    most: dict[str, Told] = {}
    for name, sweep in kept.items():
        known = [one for one in sweep["configurations"] if one.get(field)]
        for one in known:
            former = most.get(one["key"])
            if former is None or len(one["trials"]) > len(former[1]["trials"]):
                most[one["key"]] = name, one
    yield from most.values()


def isolated(kept: dict[str, Json]) -> list[tuple[str, Json, str]]:
    """Who is copied, by rule: ρ against that of a copier that copies all images alike."""
    found = []
    for name, one in _distinct(kept, "isolation"):
        told = one["isolation"]
        if told["low"] is None or told["even_low"] is None:
            continue
        answer = "not at this scale"
        if told["low"] > told["even_high"]:
            answer = "found again"
        elif told["high"] < told["even_low"]:
            answer = "opposite"
        found.append((f"{name}, {one['name']}", told, answer))
    return found


def _exponents(kept: dict[str, Json]) -> list[tuple[str, Json]]:
    """Onsets at R_mem = .5 whose power law was fitted."""
    found = []
    for name, one in _distinct(kept, "onset"):
        for onset in one["onset"]:
            if onset["level"] == 0.5 and onset["exponent"] is not None:
                found.append((f"{name}, {one['name']}", onset))
    return found


def _who_is_copied(kept: dict[str, Json]) -> str:
    found = isolated(kept)
    if not found:
        return ""
    larger = sum(told["rho"] > told["even"] for _, told, _ in found)
    head = ("sweep, configuration", "images", "ρ", "were all copied alike", "verdict")
    rows = (
        (
            name,
            str(told["n_images"]),
            f"{told['rho']:.2f} [{told['low']:.2f}, {told['high']:.2f}]",
            f"{told['even']:.2f} [{told['even_low']:.2f}, {told['even_high']:.2f}]",
            answer,
        )
        for name, told, answer in found
    )
    return (
        "## Who is copied first?\n\n"
        "Isolated images, it is said (Merger and Goldt 2026, arXiv 2606.14390). Spearman's ρ of how often a training image is "
        "copied with its distance to the nearest other one, in the trials of a configuration that mostly copy; beside it, that "
        "of a copier that copies all alike, since the rule sees copies of isolated images better. *Found again* or *opposite* "
        "where the two intervals are apart, which is more careful than 95 %.\n\n"
        f"{_table(head, rows)}"
        f"ρ is the larger of the two in {larger} of {len(found)} configurations, whose training images are partly the same. "
        "One that several questions share has one row; sweeps that were kept before this was asked have none.\n\n"
    )


def _onset(kept: dict[str, Json]) -> str:
    found = _exponents(kept)
    if not found:
        return ""
    head = (
        "sweep, configuration",
        "trials whose onset is known",
        "exponent b of images trained ~ N^b",
    )
    rows = (
        (
            name,
            str(onset["n_trials"]),
            "{value:.2f} [{low:.2f}, {high:.2f}]".format(**onset["exponent"]),
        )
        for name, onset in found
    )
    return (
        "## When does R_mem pass one half?\n\n"
        "Images trained until then, against N, as a power law; one that never passes, or had passed before its first snapshot, "
        f"enters as a bound. In proportion ({BONNAIRE}) is b = 1.\n\n"
        f"{_table(head, rows)}"
        "A training has four snapshots only, and its rate decays, which ends what would have come later and makes b smaller: "
        "this does not contradict proportion.\n\n"
    )
