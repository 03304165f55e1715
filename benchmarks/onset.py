"""When copying sets in, in the bank of real trials, and as which law of N: `python -m benchmarks.onset`.

Of every configuration of the bank: the trials whose onset is known and those that only bound it, the
three laws, and the EMM by length of training, where a training cut short is one of that length.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.bank import BANK, NAMES
from search_spaces.space import Search
from sweep.analysis.onset import LEVELS, Estimate, growth_of
from sweep.analysis.scale import emm_by_length
from sweep.search.rules import Options
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration, TrialSpec
from trainables.trial.result import DataSummary, Result, Snapshot

DATA = DataSummary(source="bank", digest="", size=0, duplicates=0)  # none of it is looked at here


def results_of(path: Path) -> list[Result]:
    """The trials of a file, each on the images of its seed, as far as a curve tells of them."""
    bank = json.loads(path.read_text())
    configuration = Configuration.model_validate(bank["configuration"])
    how = Measurement.model_validate(bank["measurement"])
    return [
        result_of(path.stem, configuration, how, trial)
        for trial in bank["trials"]
        if trial["seed"] == trial["subset_seed"]
    ]


def result_of(
    name: str, configuration: Configuration, how: Measurement, trial: dict[str, Any]
) -> Result:
    columns = trial["curve"]
    curve = [
        Snapshot(
            **dict(zip(columns, row, strict=True)),
            n_samples=how.n_selection,
            n_memorized=round(row[list(columns).index("r_mem")] * how.n_selection),
            seconds=0.0,
        )
        for row in zip(*columns.values(), strict=True)
    ]
    who = {"n": trial["n"], "seed": trial["seed"]}
    spec = TrialSpec(name=name, configuration=configuration, measurement=how, **who)
    keys = dict.fromkeys(("training_key", "measurement_key", "configuration_key"), "")
    names = [name for name in Result.model_fields if name in trial and name != "curve"]
    known = {name: trial[name] for name in names}
    return Result(**{**known, **keys}, spec=spec, data=DATA, curve=tuple(curve))


def shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:9.4g} [{estimate.low:9.4g}, {estimate.high:9.4g}]"


def main() -> None:
    paths = [BANK / f"{name}.json" for name in sorted(NAMES)]
    for path in paths:
        results = results_of(path)
        for level in LEVELS:
            growth = growth_of(results, level)
            best = " or ".join(growth.preferred)
            print(f"{path.stem}, R_mem {level:g}: {dict(growth.counts)}, {best}")
            for law in growth.laws.values():
                numbers = f"a {shown(law.a)}  b {shown(law.b):33}"
                print(f"  {law.form:12} {numbers} sd {law.sd:.3f}  AICc {law.aicc:7.1f}")
        options = Options.of(Search(n_low=4, n_high=256))
        for share, ends in emm_by_length([r for r in results if r.complete], options).items():
            numbers = (f"{end:.3g}" if end else "-" for end in (ends.emm, ends.low, ends.high))
            print(f"  EMM after {share:5.3f} of the training: {'  '.join(numbers)}")


if __name__ == "__main__":
    main()
