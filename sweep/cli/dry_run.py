"""`emm run --dry-run`: what a run would train, looked at with all its checks; nothing is created."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from sweep.cli.printing import say, show

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from sweep.analysis.study import StudySummary
    from sweep.store.places import Place
    from sweep.store.reuse import Former


def tell_what_would_run(
    space: "SearchSpace",
    here: "Place",
    only: Collection[str],
    retry_failed: bool,
    reuse: "Sequence[Former]" = (),
) -> None:
    """Configurations, range of N and what is known, with what would be taken over of `reuse`;
    only: those that would be trained, all if it is empty. Raises UserError where the run would."""
    from sweep.analysis.finals import missing_finals
    from sweep.analysis.summary import summary_of
    from sweep.report.console import Setting, grid
    from sweep.run.checks import checked_sweep
    from sweep.search.words import belief_text, counted
    from sweep.store.files import read_finals, read_sweep, under_names
    from sweep.store.lock import holder_of
    from sweep.store.priors import FrozenPriors
    from trainables.trial.result import read_all

    sweep = checked_sweep(space, here, may_fetch=False)
    former = read_sweep(here.storage)
    keys = {**(former.configurations if former else {}), **sweep.keys()}
    here_now = read_all(here.storage)
    for one in reuse:
        taken = one.missing(here_now, set(keys.values()), space)
        here_now = here_now._replace(
            results=[*here_now.results, *taken], damaged=[*here_now.damaged, *one.damaged]
        )
        say(f"would be taken over: {one.part(taken)}")
    results, started, damaged = under_names(here_now, space, keys)
    priors, finals = FrozenPriors(here.storage, keys), read_finals(here.storage)
    summary = summary_of(space, results, started, priors, finals, damaged)
    search, holder = space.search, holder_of(here.storage)
    what = "would go on with the sweep" if former else "would be a new sweep"
    say(f"{space.name}: {what} in {here.storage.shown}")
    if holder:
        say(f"driver {holder['pid']} on {holder['host']} runs it now; wait for it, or end it")
    for note in sweep.notes:
        say(f"note: {note}")
    for line in damaged:
        say(f"passed over: {line}")
    say(
        f"N from {search.n_low} to {search.n_high}, until sd(ln EMM) <= {search.precision:.3g} at "
        f"R_mem = {search.target}; at most {counted(search.cap, 'trial')} of a configuration\n"
    )
    columns: dict[str, Setting] = {"configuration": "fold"}
    columns |= dict.fromkeys(("would be", "EMM", "trials"), "left")
    again = {result.spec.name for result in missing_finals(summary)}
    rows = []
    for study in summary.studies:
        is_left_out = bool(only) and study.name not in only
        what = "left out" if is_left_out else _what(study, retry_failed, again)
        belief = belief_text(study.verdict, study.options) if study.results else ""
        rows.append((study.name, what, belief, _trials(study)))
    show(grid(columns, rows))
    say("\nnothing was trained or created; the same command without --dry-run does it")


def _trials(study: "StudySummary") -> str:
    failed = len(study.results) - len(study.complete)
    goes_on = len(study.running) if study.verdict.state == "searching" else 0
    counts = {"complete": len(study.complete), "unfinished": goes_on, "failed": failed}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _what(study: "StudySummary", retry_failed: bool, again: Collection[str]) -> str:
    """What would be done with it; again: the names of those that are measured once more."""
    failed = len(study.results) - len(study.complete)
    if retry_failed and failed and study.verdict.state in ("searching", "unresolved"):
        return f"tried again: {failed} that failed"
    if study.name in again:
        return "measured with search.final_samples"
    if study.verdict.state != "searching":
        return f"left as it is: {study.verdict.state}"
    if study.results or study.running:
        return "trained on"
    return f"trained, first at N = {study.options.start}"
