"""What a search space would cost, without its data: sizes, and hours at a speed that is told or
measured. Torch is imported only where it must be asked."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from search_spaces.space import NamedConfiguration, SearchSpace
from sweep.run.rates import Rates
from sweep.search.cost import COSTS, search_cost, unit, units_left
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.data.labels import planned_label_dim
from trainables.networks.sizes import Size, size_of_network
from trainables.progress import each

if TYPE_CHECKING:
    import torch

    from sweep.analysis.study import StudySummary

# A training step and a call of the network take these seconds at least, however small the network
# is: the time to launch their kernels, as seen on an H100 (docs/performance.md).
STEP_SECONDS, CALL_SECONDS = 0.005, 0.003


@dataclass(frozen=True)
class PlannedConfiguration:
    """One configuration at the two ends of the range of N. `flops_per_image`: one forward pass, in
    FLOPs.

    `hours_*` of a trial, sampling included; `hours_search`: of the whole search, if the EMM is the
    (geometric) middle of the range, and `hours_left`: of what it lacks, its `trials` finished and
    its EMM taken from their belief, at their pace (or that of the others, before it has any): they
    should have taken `hours_expected`, and took `hours_taken`. `state`: its verdict, None before
    there is a trial. Hours are None where neither FLOPs nor rates are known: a trainer of the user's
    that was not measured.
    """

    name: str
    factors: dict[str, Any]
    parameters: int
    flops_per_image: int
    n_low: int
    n_high: int
    steps_low: int
    steps_high: int
    images_low: int
    images_high: int
    images_per_second: float | None
    hours_low: float | None
    hours_high: float | None
    hours_search: float | None
    hours_left: float | None
    trials: int = 0
    hours_expected: float = 0.0
    hours_taken: float = 0.0
    state: str | None = None


def plan(
    space: SearchSpace,
    tflops: float | None,
    device: "torch.device | None" = None,
    threads: int = 1,
    known: "Mapping[str, StudySummary]" = {},  # noqa: B006  it is read
    only: Collection[str] = (),
) -> list[PlannedConfiguration]:
    """Every configuration, or those of the names in `only`; hours on a device that sustains `tflops`
    TFLOP/s (a backward pass taken as two forward ones; of small networks, launching kernels), or at
    the rates measured on `device` with so many `threads`. `known`: what there is of a sweep already,
    by name. Of features, only whether they can be had is looked at."""
    if space.measurement.features is not None:
        from sweep.run.checks import check_features  # imports what no other plan needs

        check_features(space)
    what = "measuring how fast this machine is" if device else "counting"
    chosen = [named for named in space.configurations if not only or named.name in only]
    rows = [
        _planned(named, space, tflops, device, threads, known.get(named.name))
        for named in each(chosen, what)
    ]
    of_all = _pace(rows) or 1.0
    return [
        row
        if row.hours_left is None
        else replace(row, hours_left=(_pace([row]) or of_all) * row.hours_left)
        for row in rows
    ]


def _pace(rows: Sequence[PlannedConfiguration]) -> float | None:
    """How much longer than planned their trials have taken; None before there are any."""
    expected = sum(row.hours_expected for row in rows)
    return sum(row.hours_taken for row in rows) / expected if expected else None


def _planned(
    named: NamedConfiguration,
    space: SearchSpace,
    tflops: float | None,
    device: "torch.device | None",
    threads: int,
    study: "StudySummary | None",
) -> PlannedConfiguration:
    configuration, trainer = named.configuration, named.configuration.trainer
    n_low, n_high = space.search.n_low, space.search.n_high
    parameters, flops = size_of(configuration, n_low)
    if device is None:
        rates = _told_rates(flops, tflops, configuration, space.measurement)
    else:
        from sweep.run.measured import measured_rates

        rates = measured_rates(configuration, space.measurement, n_low, flops, device, threads)

    def hours(n: int) -> float | None:
        return _hours(rates, _trained_images(configuration, n), space.measurement)

    middle, cost = round(math.sqrt(n_low * n_high)), COSTS[trainer.clock]
    hours_middle = hours(middle)
    hours_search = None
    if hours_middle is not None:
        hours_search = search_cost(cost, space.search) * hours_middle
    hours_left, finished = hours_search, study.complete if study else []
    sizes = [result.spec.n for result in finished]
    if study is not None and hours_left is not None:
        emm = max(1, round(study.verdict.emm or middle))
        is_over = study.verdict.state != "searching"
        units = 0.0 if is_over else units_left(cost, space.search, emm, sizes)
        hours_left = units / unit(cost, emm) * (hours(emm) or 0.0)
    return PlannedConfiguration(
        name=named.name,
        factors=named.factors,
        parameters=parameters,
        flops_per_image=flops,
        n_low=n_low,
        n_high=n_high,
        steps_low=trainer.train_steps(n_low),
        steps_high=trainer.train_steps(n_high),
        images_low=trainer.train_images(n_low),
        images_high=trainer.train_images(n_high),
        images_per_second=rates.trained if rates and device else None,
        hours_low=hours(n_low),
        hours_high=hours(n_high),
        hours_search=hours_search,
        hours_left=hours_left,
        trials=len(sizes),
        hours_expected=sum(hours(n) or 0.0 for n in sizes),
        hours_taken=sum(result.seconds for result in finished) / 3600,
        state=study.verdict.state if study and study.results else None,
    )


def hours_of_sizes(
    configuration: Configuration, space: SearchSpace, sizes: Sequence[int], tflops: float
) -> float:
    """Hours of one training at each N in `sizes`, on a device that sustains `tflops` TFLOP/s; 0 for
    what is not trained."""
    flops = size_of(configuration, sizes[0]).flops
    rates = _told_rates(flops, tflops, configuration, space.measurement)
    images = [_trained_images(configuration, n) for n in sizes]
    return sum(_hours(rates, of_n, space.measurement) or 0.0 for of_n in images)


def _trained_images(configuration: Configuration, n: int) -> int:
    """The closed-form optimum is not trained."""
    if configuration.trainer.kind != "custom" and configuration.network.kind == "optimum":
        return 0
    return configuration.trainer.train_images(n)


def _hours(rates: Rates | None, trained: int, how: Measurement) -> float | None:
    if rates is None:
        return None
    snapshots = how.snapshots_of(trained)
    sampled = (how.n_samples + snapshots * how.n_selection) * how.network_calls
    models = 2 if how.pair else 1
    return models * (trained / rates.trained + sampled / rates.sampled) / 3600


def _told_rates(
    flops: int, tflops: float | None, configuration: Configuration, how: Measurement
) -> Rates | None:
    if not flops or not tflops:
        return None
    # as many are drawn at a snapshot, or at the end
    sampled_at_once = min(how.at_once, max(how.n_samples, how.n_selection))
    return Rates(
        trained=min(tflops * 1e12 / flops / 3, configuration.trainer.batch / STEP_SECONDS),
        sampled=min(tflops * 1e12 / flops, sampled_at_once / CALL_SECONDS),
    )


def size_of(configuration: Configuration, n: int) -> Size:
    """Parameters at N = `n` (unique labels add some), and FLOPs of a forward pass per image.

    Ours are known by arithmetic. A network of the user's is checked and counted by torch; a trainer
    of the user's is checked, and keeps both to itself: 0.
    """
    data, label_dim = configuration.data, planned_label_dim(configuration, n)
    if configuration.trainer.kind == "custom":
        from trainables.training.custom import check_custom

        check_custom(configuration, label_dim)
        return Size(0, 0)
    size = size_of_network(configuration.network, data.resolution, data.channels, label_dim)
    if size is None:
        from sweep.run.measured import counted_size

        size = counted_size(configuration, label_dim)
    return size
