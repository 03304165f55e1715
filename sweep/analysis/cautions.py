"""What may make an EMM mean something else than it seems, each said once with the configurations
that it applies to; and every cause of failure."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from sweep.analysis.contrasts import order_lines
from sweep.analysis.scale import near
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.words import counted
from trainables.measure.feature_rule import LEAST_HELD_OUT
from trainables.text import amount
from trainables.trial.result import DataSummary

RISING = 0.05  # rise of R_mem from half to the end of the training that is worth a warning
CHANCE = 0.01  # null rate that is worth a warning
# share of the distinct copied images to be expected under which copying counts as uneven
COLLAPSED = 0.5
# loss at the end of a training, over that of others of as many images or more, that is worth a
# warning; of 1,832 real trainings (docs/bank.md) the largest was 1.5 times theirs
UNLEARNED = 3.0


class Trap(NamedTuple):
    """That applies to a configuration. `line`: in full, with its numbers; `what`: the same for all
    that it applies to; `here`: the numbers alone."""

    line: str
    what: str
    here: str = ""


@dataclass(frozen=True)
class Caution:
    """`what`: in one sentence; `of`: name of a configuration → its numbers in words, which may be
    none; empty, where it is of the whole sweep or of one configuration, which `what` then names."""

    what: str
    of: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Each with its numbers."""
        return [f"{name} ({here})" if here else name for name, here in self.of.items()]


def cautions(summary: SweepSummary) -> list[Caution]:
    """Every file that could not be read and every trap that applies, those of the data first; a
    trap once, with all configurations that it applies to."""
    lines = [f"passed over: {line}" for line in summary.damaged]
    lines += _changed_code(summary)
    lines += [
        f"{data.source}: {data.duplicates:,} of {data.size:,} images equal another one; copies of "
        "them never count as memorized"
        for data in data_sets(summary)
        if data.duplicates
    ]
    checks: list[Callable[[StudySummary], Trap | None]] = [_alone, _rising, _unlearned]
    if summary.eye == "pixels":  # of the rule in pixels, which else decides nothing
        lines += [*_across_data(summary), *_two_rules(summary)]
        checks += [_low_ceiling, _noisy, _chance, _uneven]
    checks += [_unknown_in_features, _unseen, _large_share, _accepted]
    lines += order_lines(summary.contrasts_by_target)
    traps: dict[str, dict[str, Trap]] = {}  # what → name → in full
    for study in summary.studies:
        for trap in [*(check(study) for check in checks), *_failures(study)]:
            if trap is not None:
                traps.setdefault(trap.what, {})[study.name] = trap
    return [*map(Caution, lines), *(_said_once(what, of) for what, of in traps.items())]


def _changed_code(summary: SweepSummary) -> list[str]:
    """Of the user's, under one version."""
    files = defaultdict(set)
    for run in summary.runs:
        for name, digest in run.code.items():
            files[name].add(digest)
    return [
        f"the file of {name}, was changed between runs; as far as trials were trained by {len(found)} "
        "of its states, they count as alike"
        for name, found in files.items()
        if len(found) > 1
    ]


def _said_once(what: str, of: Mapping[str, Trap]) -> Caution:
    if len(of) > 1:
        return Caution(what, {name: trap.here for name, trap in of.items()})
    ((name, trap),) = of.items()
    return Caution(f"{name}: {trap.line}")


def data_sets(summary: SweepSummary) -> list[DataSummary]:
    """Every data set that trials were trained on."""
    by_digest: dict[str, DataSummary] = {}
    for study in summary.studies:
        for trial in [*study.results, *study.running]:
            by_digest[trial.data.digest] = trial.data
    return list(by_digest.values())


def _across_data(summary: SweepSummary) -> list[str]:
    """Named with the density of each, since that is what the rule depends on, and with what it
    leaves of a noisy copier."""
    by_data: dict[str, StudySummary] = {}
    for study in summary.studies:
        if study.verdict.state == "found" and (digest := study.digest):
            by_data.setdefault(digest, study)
    if len(by_data) < 2:
        return []
    distances = [
        f"{name}: {amount(mean)}" for name, mean in _means(by_data.values(), "nn_distance")
    ]
    copiers = [f"{name}: {mean:.3f}" for name, mean in _means(by_data.values(), "noisy_copier")]
    known = []
    if distances:
        between = "median distance of a training image to its nearest other one"
        known.append(f"{between}: {'; '.join(distances)}")
    if copiers:
        known.append(f"noisy copier: {'; '.join(copiers)}")
    details = f" ({'. '.join(known)})" if known else ""
    return [
        f"contrasts across {len(by_data)} data sets: the rule d1 < k d2 is tighter on denser "
        f"data{details}"
    ]


def _means(studies: Iterable[StudySummary], measure: str) -> list[tuple[str, float]]:
    """The mean that stands beside the EMM of each study of which it is known."""
    means = [(study.name, study.scale.means[measure]) for study in studies]
    return [(name, mean) for name, mean in means if mean is not None]


def _two_rules(summary: SweepSummary) -> list[str]:
    """With flips a mirrored copy counts too: another rule than without, so both numbers of each are
    needed."""
    if len({named.configuration.trainer.augment for named in summary.configurations}) < 2:
        return []
    known = []
    for study in summary.studies:
        pairs = [
            (r.r_mem_without_flips, r.r_mem_with_flips)
            for r in near(study.complete, study.verdict.emm)
            if r.r_mem_without_flips is not None and r.r_mem_with_flips is not None
        ]
        if pairs:
            without, with_flips = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            known.append(f"{study.name}: {without:.3f} / {with_flips:.3f}")
    details = ""
    if known:
        near_emm = "R_mem near the EMM without and with them, on the same images"
        details = f"; {near_emm}: {'; '.join(known)}"
    return [
        "trainer.augment differs: only where training mirrors images do mirrored copies "
        f"count{details}"
    ]


def _alone(study: StudySummary) -> Trap | None:
    if not study.contradicts:
        return None
    line = (
        "its trials contradict what the other configurations have in common; its interval is from "
        "its own trials only"
    )
    return Trap(line, line)


def _rising(study: StudySummary) -> Trap | None:
    trials = near(study.complete, study.verdict.emm)
    trials = [
        r for r in trials if r.measurement.half(r.configuration.trainer.train_images(r.spec.n))
    ]
    pairs = [
        (r.r_mem_half, r.r_mem_last)
        for r in trials
        if r.r_mem_half is not None and r.r_mem_last is not None
    ]
    if not pairs:
        return None
    half, last = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    centre, n_samples = (half + last) / 2, len(pairs) * study.results[0].measurement.n_selection
    if last - half <= max(RISING, 2 * math.sqrt(2 * centre * (1 - centre) / n_samples)):
        return None
    ends, count = f"{half:.2f} at half of the training, {last:.2f} at its end", len(pairs)
    why = trials[0].spec.why_no_half
    if why:
        what = "near the EMM, R_mem rises late"
        so = f"whether longer training gives a larger EMM can't be told, since {why}"
    else:
        what, so = "near the EMM, R_mem still rises", "longer training may give a larger EMM"
    line = f"{what}: {ends} (mean of {counted(count, 'trial')}); {so}"
    return Trap(line, f"{what}; {so}", f"{ends}, mean of {counted(count, 'trial')}")


def _unlearned(study: StudySummary) -> Trap | None:
    """A training that broke down copies nothing, as one of too many images does."""
    ends = [(r, r.curve[-1].loss) for r in study.complete if r.curve and not r.right_censored]
    losses = [(r, loss) for r, loss in ends if loss is not None]
    bad = []
    for result, loss in losses:
        others = [b for r, b in losses if r is not result and r.spec.n >= result.spec.n]
        usual = median(others) if others else 0.0  # a loss of the user's may be 0, or below
        copies_little = (result.r_mem or 0.0) < study.options.target
        if copies_little and 0 < UNLEARNED * usual < loss:
            bad.append((loss / usual, result, loss))
    if not bad:
        return None
    times, worst, loss = max(bad, key=lambda one: one[0])
    what = "a training seems to have broken down"
    here = f"loss {loss:.2g} at N = {worst.spec.n}, seed {worst.spec.seed}"
    so = "it counts as one that copies little; a lower learning rate may mend it"
    more = f" ({len(bad)} of {counted(len(losses), 'trial')})" if len(bad) > 1 else ""
    line = f"{what}: {here}, {times:.0f} × that of others of as many images or more{more}; {so}"
    return Trap(line, f"{what}, by its loss at the end; {so}", f"{here}, {times:.0f} ×{more}")


def _low_ceiling(study: StudySummary) -> Trap | None:
    ceilings = [(r.ceiling, r.spec.n) for r in study.complete if r.ceiling is not None]
    low, n = min(ceilings, default=(1.0, 0))
    if low >= study.options.target:
        return None
    here, target = f"R_mem {low:.2f} at N = {n}", f"below the target {study.options.target:g}"
    return Trap(
        f"even the closed-form optimum reaches only {here}, {target}",
        f"even the closed-form optimum stays {target}",
        here,
    )


def _noisy(study: StudySummary) -> Trap | None:
    copier, target = study.scale.means["noisy_copier"], study.options.target
    if copier is None or copier >= target or not near(study.complete, study.verdict.emm):
        return None
    copies = "near the EMM, copies of training images with noise at median d1 would"
    below = f"below the target {target:g} (noisy copier): the EMM may say how dense the data are"
    here = f"R_mem {copier:.2f}"
    return Trap(f"{copies} reach only {here}, {below}", f"{copies} stay {below}", here)


def _chance(study: StudySummary) -> Trap | None:
    """The null rate falls with N, so it is looked at for every N."""
    rates = defaultdict(list)
    for result in study.complete:
        if result.null_rate is not None:
            rates[result.spec.n].append(result.null_rate)
    rate, n = max(((sum(values) / len(values), n) for n, values in rates.items()), default=(0.0, 0))
    if rate <= CHANCE:
        return None
    k = study.results[0].measurement.k
    what = f"chance alone counts at k = {k:.3g}"
    here = f"{rate:.1%} of held-out images would be copies at N = {n}"
    return Trap(f"{what}: {here}", what, here)


def _unknown_in_features(study: StudySummary) -> Trap | None:
    asked = [r for r in study.complete if r.measurement.features is not None]
    unknown = [r for r in asked if r.r_mem_features is None]
    if not unknown:
        return None
    here = f"{len(unknown)} of {len(asked)} trials"
    why = f"the threshold needs {LEAST_HELD_OUT} held-out images or more"
    what = "R_mem in features is not known of"
    return Trap(f"{what} {here}: {why}", f"{what} some trials, since {why}", here)


def _unseen(study: StudySummary) -> Trap | None:
    shares = [(r.unseen_labels, r.spec.n) for r in study.complete if r.unseen_labels]
    if not shares:
        return None
    share, n = max(shares)
    here = f"{share:.0%} of the samples at N = {n}"
    unseen = "of labels that no training image has, as protocol=paper draws them"
    return Trap(f"{here} are {unseen}", f"samples are {unseen}", here)


def _large_share(study: StudySummary) -> Trap | None:
    size = min((r.data.size for r in study.results), default=0)
    n = study.options.high if study.verdict.state == "above_range" else study.verdict.emm
    if not n or n <= size / 2:
        return None
    here = f"N = {n:.0f} is {n / size:.0%} of the {size:,} images that there are"
    so = "above half, the verdict is for this data set only"
    return Trap(f"{here}; {so}", f"the EMM is a large share of the data; {so}", here)


def _uneven(study: StudySummary) -> Trap | None:
    """Mode collapse looks like memorization: a few training images, copied over and over."""
    trials = [r for r in near(study.complete, study.verdict.emm) if r.distinct_expected]
    bad = [r for r in trials if r.distinct_copied < COLLAPSED * (r.distinct_expected or 0)]
    if not bad:
        return None
    worst = min(bad, key=lambda r: r.distinct_copied / (r.distinct_expected or 1))
    what = "few training images are copied again and again"
    even = f"where even copying would give {worst.distinct_expected:.0f}"
    here = f"{worst.distinct_copied} distinct ones at N = {worst.spec.n}, {even}"
    near_it = f"{len(bad)} of {len(trials)} trials near the EMM"
    return Trap(f"{what}: {here} ({near_it})", what, f"{here}, {near_it}")


def _accepted(study: StudySummary) -> Trap | None:
    count = sum(r.right_censored for r in study.complete)
    if not count:
        return None
    here = f"{count} of {len(study.complete)} trials"
    early = "ended early since R_mem was high enough; theirs is a lower bound"
    return Trap(f"{here} {early}", f"trials that {early}", here)


def _failures(study: StudySummary) -> list[Trap]:
    causes = Counter(r.cause or "unknown cause" for r in study.results if not r.complete)
    return [_failure(cause, count) for cause, count in causes.items()]


def _failure(cause: str, count: int) -> Trap:
    here = counted(count, "trial")
    return Trap(f"{here} failed: {cause}", f"trials failed: {cause}", here)
