"""A sweep seen otherwise: some of its configurations, at another target, two sweeps as one."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.space import SearchSpace
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.rules import Verdict
from trainables.errors import UserError
from trainables.text import some

ACROSS = "sweep"  # the factor that says of which of several sweeps a configuration is


def selected(summary: SweepSummary, names: Sequence[str]) -> SweepSummary:
    """These configurations alone, in this order; contrasts are looked at among them. Raises
    UserError for one that there is not."""
    known = {study.name for study in summary.studies}
    check_known("select", names, known)
    if not names:
        raise UserError("select: name at least one configuration")

    def chosen(one: SweepSummary) -> SweepSummary:
        studies = {study.name: study for study in one.studies}
        return replace(one, studies=[studies[name] for name in dict.fromkeys(names)])

    return _in_both_eyes(summary, chosen)


def check_known(option: str, names: Sequence[str], known: set[str]) -> None:
    """Raises UserError, with those there are, unless every name is known."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{option}: there is no {unknown[0]}; there are {', '.join(sorted(known))}")


def at_target(summary: SweepSummary, target: float) -> SweepSummary:
    """The EMM of every configuration at another target, where the trials of the search tell it; see
    `sweep.analysis.profile`. Raises UserError unless 0 < target < 1."""
    if not 0 < target < 1:
        raise UserError(f"target: an R_mem between 0 and 1 is needed, not {target:g}")
    own = summary.space.search.target
    if target == own:
        return summary

    def seen(one: SweepSummary) -> SweepSummary:
        search = one.space.search.model_copy(update={"target": target, "targets": ()})
        space = one.space.model_copy(update={"search": search})
        studies = [_study_at(study, target, own) for study in one.studies]
        return replace(one, space=space, studies=studies)

    return _in_both_eyes(summary, seen)


def _study_at(study: StudySummary, target: float, own: float) -> StudySummary:
    belief, n_trials = study.belief_at(target), len(study.observations)
    if belief is None:
        why = f"its trials, of a search for {own:g}, do not tell the EMM at {target:g}"
        verdict = Verdict("unresolved", None, None, None, None, why, n_trials)
    else:
        why = f"by the trials of a search for {own:g}"
        verdict = Verdict("found", belief.median, *belief.interval(), belief.sd, why, n_trials)
    return replace(
        study, options=study.options.at(target), verdict=verdict, searched=None, pooled=False
    )


def _in_both_eyes(
    summary: SweepSummary, change: Callable[[SweepSummary], SweepSummary]
) -> SweepSummary:
    """Changed, and with it what the other eye saw of the same trials, if there is one."""
    other = _other_eye(summary)
    return replace(change(summary), other=None if other is None else change(other))


# ---------------------------------------------------------------- two sweeps


def joined(sweeps: Mapping[str, SweepSummary]) -> SweepSummary:
    """Several sweeps as one, whose first factor is the sweep, called by the keys of `sweeps`: all at
    the target of the first. `notes` say what is compared across them.

    A factor that one sweep varies and another does not is given to the other's configurations, where
    they have one of its levels. Raises UserError where the sweeps do not count copies alike.
    """
    if len(sweeps) < 2:
        raise UserError("compare: two sweeps or more are needed")
    names = list(sweeps)
    for name in names[1:]:
        _check_alike(names[0], sweeps[names[0]], name, sweeps[name])
    whole = _joined(sweeps)
    others = {name: _other_eye(one) for name, one in sweeps.items()}
    known = {name: other for name, other in others.items() if other is not None}
    other = _joined(known) if len(known) == len(sweeps) else None
    return replace(
        whole, other=other, notes=[*_across(whole), *_shared(whole), *_differences(sweeps)]
    )


def _joined(sweeps: Mapping[str, SweepSummary]) -> SweepSummary:
    first = next(iter(sweeps.values()))
    levels = [level for one in sweeps.values() for level in _levels(one.space)]
    studies = []
    for name, one in sweeps.items():
        for study in at_target(one, first.space.search.target).studies:
            factors = {ACROSS: name, **_factors(study, one.space, levels)}
            studies.append(replace(study, name=f"{name}: {study.name}", factors=factors))
    space = _space(sweeps)
    return SweepSummary(
        space.name,
        space,
        studies,
        damaged=[f"{name}: {line}" for name, one in sweeps.items() for line in one.damaged],
        runs=[run for one in sweeps.values() for run in one.runs],
        spaces=[one.space for one in sweeps.values()],
    )


def _space(sweeps: Mapping[str, SweepSummary]) -> SearchSpace:
    """The first one's, but for its words and the range of N, which are those of all. It has no other
    eye unless all have."""
    spaces = [one.space for one in sweeps.values()]
    low = min(space.search.n_low for space in spaces)
    high = max(space.search.n_high for space in spaces)
    changes: dict[str, Any] = {
        word: " / ".join(dict.fromkeys(getattr(space, word) for space in spaces))
        for word in ("question", "source", "expectation")
    }
    changes["name"] = " and ".join(sweeps)
    changes["search"] = spaces[0].search.model_copy(update={"n_low": low, "n_high": high})
    if any(one.eyes is None for one in sweeps.values()):
        changes["measurement"] = spaces[0].measurement.model_copy(update={"features": None})
    return spaces[0].model_copy(update=changes)


def _other_eye(summary: SweepSummary) -> SweepSummary | None:
    others = (summary.eyes or {}).values()
    return next((one for one in others if one is not summary), None)


def called_apart(names: Sequence[str]) -> list[str]:
    """Sweeps by their names or directories, in short: the last word of each path, if these differ;
    with its number where two are the same."""
    words = [name.rstrip("/").rpartition("/")[2] or name for name in names]
    shorter = words if len(set(words)) == len(words) else list(names)
    if len(set(shorter)) == len(shorter):
        return shorter
    return [f"{name} ({number})" for number, name in enumerate(shorter, 1)]


def _check_alike(a: str, first: SweepSummary, b: str, other: SweepSummary) -> None:
    ours, theirs = first.space.measurement, other.space.measurement
    if ours.k != theirs.k:
        raise UserError(
            f"compare: {a} counts copies by k = {ours.k:.3g}, {b} by {theirs.k:.3g}; "
            "judge both by one, with --k"
        )
    if first.eye != other.eye:
        raise UserError(
            f"compare: {a} is judged in {first.eye}, {b} in {other.eye}: these are other EMMs"
        )


@dataclass(frozen=True)
class Level:
    """A level of a factor, and the fields that it sets, by path."""

    factor: str
    value: Any
    fields: Mapping[str, Any]


def _levels(space: SearchSpace) -> list[Level]:
    """All that the space varies."""
    levels: dict[tuple[str, str], Level] = {}
    for named in space.configurations:
        tree = named.configuration.model_dump(mode="json")
        for key, factor in space.factor_names.items():
            value = named.factors[factor]
            if (factor, repr(value)) not in levels:
                fields = {path: _at(tree, path) for path in space.paths_of(key)}
                levels[factor, repr(value)] = Level(factor, value, fields)
    return list(levels.values())


def _factors(study: StudySummary, space: SearchSpace, levels: Sequence[Level]) -> dict[str, Any]:
    """Its own, and those that other sweeps vary, as far as its configuration has one of their
    levels; in the order of `levels`."""
    (named,) = (one for one in space.configurations if one.name == study.name)
    tree, known = named.configuration.model_dump(mode="json"), dict(study.factors)
    for level in levels:
        has_it = all(_at(tree, path) == value for path, value in level.fields.items())
        if has_it and level.factor not in known:
            known[level.factor] = level.value
    order = dict.fromkeys(level.factor for level in levels)
    return {factor: known[factor] for factor in order if factor in known}


def _at(fields: Any, path: str) -> Any:
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def _across(whole: SweepSummary) -> list[str]:
    """Which contrasts are across sweeps, and of which data."""
    across = [one for one in whole.compared.shown if one.factor == ACROSS]
    if not across:
        digests = {study.digest for study in whole.studies}
        alike = "all were trained on" if len(digests) == 1 else "not all are of"
        data = "" if None in digests else f"; {alike} the same data"
        return [
            "no contrast is across the sweeps: no two configurations whose EMM was found, each by "
            f"trials of its own, differ in the sweep alone; contrasts.csv has all pairs{data}"
        ]
    same, count = sum(one.same_data for one in across), len(across)
    if same == count:
        data = "on the same data"
    elif same == 0:
        data = "on other data"
    else:
        data = f"{same} on the same data"
    what = "1 contrast is" if count == 1 else f"{count} contrasts are"
    return [
        f"{what} across the sweeps, {data}; noise and shape of the curves are pooled within each "
        "sweep"
    ]


def _shared(whole: SweepSummary) -> list[str]:
    """Which configurations of two sweeps have trials in common: they are no replication."""
    same, some_of = list[str](), list[str]()
    for a, b in itertools.combinations(whole.studies, 2):
        count = len(a.training_keys & b.training_keys)
        fewest = min(len(a.training_keys), len(b.training_keys))
        if count and count == fewest:
            same.append(f"{b.name} / {a.name}")
        elif count:
            some_of.append(f"{b.name} / {a.name} ({count} of {fewest})")
    lines = []
    if same:
        lines.append(f"no ratio, since the trials are the same: {some(same)}")
    if some_of:
        lines.append(f"some trials are the same, so that the ratio is nearer to 1: {some(some_of)}")
    return lines


def _differences(sweeps: Mapping[str, SweepSummary]) -> list[str]:
    """What differs between the sweeps beside factors: fields that no sweep varies."""
    varied, tables = set[str](), dict[str, dict[str, Any]]()
    for name, one in sweeps.items():
        for key in one.space.factor_names:
            varied.update(one.space.paths_of(key))
        space = one.space.model_dump(mode="json", include={"base", "measurement", "search"})
        base = space.pop("base")
        tables[name] = _flat(base) | _flat(space)
    lines = []
    for path in dict.fromkeys(itertools.chain(*tables.values())):  # each once, in their order
        values = {name: table.get(path) for name, table in tables.items()}
        first, *others = values.values()
        if all(value == first for value in others) or _is_below(path, varied):
            continue
        lines.append(f"{path} differs: {', '.join(f'{name} {v}' for name, v in values.items())}")
    return lines


def _is_below(path: str, others: set[str]) -> bool:
    """Whether a path is one of the others, or that of a field inside one."""
    return any(path == other or path.startswith(f"{other}.") for other in others)


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by path."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{path}": one for path, one in _flat(value).items()}
        else:
            flat[name] = value
    return flat
