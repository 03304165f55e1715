"""The page of findings, docs/findings.md: claims of the literature, each against a sweep of ours.

    python -m benchmarks.findings keep NAME DIR [PLAN]   # what a finished sweep says -> benchmarks/findings/NAME.json
    python -m benchmarks.findings page                   # writes the page and its figures from what is kept; trains nothing

PLAN is a file: what `emm plan SPACE --measure --json` said before.

What is kept is that of `emm report DIR --json`, without what the page does not show.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import false_discovery_control, norm

from benchmarks.claims import Claim, Question
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary, summarize
from sweep.search.belief import HEAVY
from sweep.store.places import place

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks/findings"

Json = Mapping[str, Any]

# what is kept: of a configuration, of its scale, of who is copied, of a trial
EMM = "emm", "emm_low", "emm_high"
SCALE = "median_d1", "nn_distance", "noisy_copier"
ISOLATION = "rho", "low", "high", "even", "even_low", "even_high", "n_images"
TRIAL = "n", "seed", "r_mem", "pair_agreement"


def keep(name: str, directory: str, plan: str | None = None) -> Path:
    """Raises UserError if there is no sweep."""
    summary = summarize(place(directory).storage)
    told = summary.as_json()
    seconds = sum(result.seconds for study in summary.studies for result in study.results)
    content = {
        "sweep": told["sweep"],
        "target": summary.space.search.target,
        "question": summary.space.question,
        "hours": seconds / 3600,
        "noisy_share": HEAVY,
        "configurations": [
            {**_configuration(one), **_outside(study), "key": study.results[0].configuration_key}
            for one, study in zip(told["configurations"], summary.studies, strict=True)
        ],
        "contrasts": told["contrasts"],
        "contrasts_by_target": told["contrasts_by_target"],
    }
    if plan is not None:
        content["planned"] = _planned(summary, json.loads(Path(plan).read_text()))
    file = KEPT / f"{name}.json"
    file.write_text(json.dumps(_rounded(content), indent=None, separators=(",", ":")) + "\n")
    return file


def _planned(summary: SweepSummary, plan: Json) -> dict[str, float]:
    """Seconds of the trials that this sweep trained itself, and what the plan had said of them; of
    configurations whose trials cost the same at every N."""
    said = {one["name"]: 3600 * one["hours_low"] for one in plan["configurations"]}
    own = [
        (result.seconds, said[study.name])
        for study in summary.studies
        for result in study.results
        if result.finished_at > summary.runs[0].at
    ]
    return {"n_trials": len(own), "seconds": sum(a for a, _ in own), "said": sum(b for _, b in own)}


def _configuration(told: Json) -> dict[str, Any]:
    kept = {name: told[name] for name in ("name", "verdict", "reason", *EMM, "profile")}
    for name, fields in ("scale", SCALE), ("isolation", ISOLATION):
        if told[name] is not None:
            kept[name] = {field: told[name][field] for field in fields}
    kept["onset"] = [_onset(one) for one in told["onset"]]
    finished = [trial for trial in told["trials"] if trial["state"] == "complete"]
    kept["trials"] = [
        {field: trial[field] for field in TRIAL if trial[field] is not None} for trial in finished
    ]
    return kept


def _outside(study: StudySummary) -> dict[str, float]:
    """How much of the belief lies below and above the range of N."""
    belief, options = study.belief, study.options
    if belief is None:
        return {}
    return {"below": belief.p_below(options.low), "above": belief.p_above(options.high)}


def _onset(told: Json) -> dict[str, Any]:
    """Of one level: from how many trials, and the exponent of the power law, where it was fitted."""
    power = told["laws"].get("power")
    return {"level": told["level"], "n_trials": told["at"], "exponent": power and power["b"]}


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
    """Where one EMM lies beyond the range of N: from the end of the other's interval and the end of
    the range that was trained, which is more careful than 95 %."""
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
        return None, _at_least(more) / _at_most(less), None
    return None, None, _at_most(more) / _at_least(less)


def _at_least(one: Json) -> float:
    """What its curve says beyond the sizes that were trained is a belief, not seen."""
    largest = max(trial["n"] for trial in one["trials"])
    return float(
        min(one["emm_low"], largest) if one["verdict"] == "above_range" else one["emm_low"]
    )


def _at_most(one: Json) -> float:
    smallest = min(trial["n"] for trial in one["trials"])
    return float(
        max(one["emm_high"], smallest) if one["verdict"] == "below_range" else one["emm_high"]
    )


TOLD_APART = "found again", "opposite", "a difference"


def verdict(claim: Claim, ratio: Ratio | None) -> str:
    if ratio is None:
        return "not known"
    low, high = ratio[1] or 0.0, ratio[2] or float("inf")
    if low <= 1 <= high:
        return "not at this scale" if claim.source else "not told apart"
    if claim.source is None:
        return "a difference"
    return "found again" if low > 1 else "opposite"


def _alone(claim: Claim, ratio: Ratio | None) -> str:
    return ", alone" if verdict(claim, ratio) in TOLD_APART else ""


def p_value(kept: Json, claim: Claim, ratio: Ratio) -> float:
    """Of a ratio of 1, two-sided, ln ratio taken as normal.

    Of a bound: one EMM can't be the other unless one of them lies on the wrong side of the end of
    the range.
    """
    middle, low, high = ratio
    if middle is not None and low is not None and high is not None:
        return float(2 * norm.sf(abs(math.log(middle)) / (math.log(high / low) / (2 * 1.96))))
    if not ((low or 0.0) > 1 or (high or math.inf) < 1):
        return 1.0
    found = {one["name"]: one for one in kept["configurations"]}
    both = [found[claim.more], found[claim.less]]
    larger, smaller = both if low is not None else both[::-1]
    wrong = 1.0
    if smaller["verdict"] == "below_range":
        wrong = (1 - smaller["below"]) + larger["below"]
    if larger["verdict"] == "above_range":
        wrong = min(wrong, (1 - larger["above"]) + smaller["above"])
    return min(1.0, 2 * wrong)


def hold_together(p_values: Sequence[float]) -> list[bool]:
    """Which of these hold when all are looked at together: at most 5 % of them are expected to be
    chance (Benjamini and Hochberg 1995)."""
    if not p_values:
        return []
    adjusted = false_discovery_control(p_values)
    return [bool(p <= 0.05) for p in adjusted]


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


def ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return "–"
    middle, low, high = ratio
    if middle is None:
        return f"> {low:.2f}" if low is not None else f"< {high:.2f}"
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def rows_of(
    question: Question, kept: Json, holds: Collection[tuple[str, Claim]]
) -> Iterator[tuple[str, ...]]:
    """holds: the claims, by question, that hold together."""
    for claim in question.claims:
        ratio = contrast_of(kept, claim)
        shown = ratio_text(ratio)
        emms = [_emm_text(kept, name, claim.target) for name in (claim.more, claim.less)]
        yield (
            f"{claim.says} ({claim.source or 'open'})",
            f"{claim.target:g}",
            f"{claim.more}: {emms[0]}",
            f"{claim.less}: {emms[1]}",
            shown,
            f"**{verdict(claim, ratio)}**"
            + ("" if (question.name, claim) in holds else _alone(claim, ratio)),
        )


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        print(keep(*sys.argv[2:]))
    else:
        from benchmarks.findings_page import PAGE, page

        PAGE.write_text(page())
