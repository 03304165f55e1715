"""Factors: which are numbers, and all as columns of a table, beside columns with names of their own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from search_spaces.settings import text_of
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.rows import LEFT
from sweep.report.tables import Rows

Records = Sequence[tuple[str, dict[str, Any]]]  # name of a configuration, and what is said of it


def is_number(level: Any) -> bool:
    """Of true and false it is not."""
    return isinstance(level, int | float) and not isinstance(level, bool)


def numeric_factor(studies: Sequence[StudySummary]) -> str | None:
    """The factor of these studies, if there is one alone, and its levels are different numbers."""
    names = {name for study in studies for name in study.factors}
    levels = [level for study in studies for level in study.factors.values()]
    if len(names) != 1 or len(levels) < 2 or not all(map(is_number, levels)):
        return None
    return names.pop() if len(set(levels)) == len(studies) else None


def factor_heads(summary: SweepSummary, taken: Collection[str]) -> dict[str, str]:
    """Factor → the head of its column: its name, but `factor_NAME` where another column has it."""
    factors = dict.fromkeys(factor for study in summary.studies for factor in study.factors)
    heads: dict[str, str] = {}
    for factor in factors:
        head, others = factor, factors.keys() - {factor}
        while head in taken or head in others or head in heads.values():
            head = f"factor_{head}"
        heads[factor] = head
    return heads


def with_factors(summary: SweepSummary, records: Records) -> list[dict[str, Any]]:
    """Each record behind its `configuration` and the values of its factors."""
    taken = {"configuration", *(name for _, record in records for name in record)}
    heads = factor_heads(summary, taken)
    with_heads = {
        study.name: {heads[factor]: level for factor, level in study.factors.items()}
        for study in summary.studies
    }
    return [{"configuration": name, **with_heads[name], **record} for name, record in records]


def level_text(factors: Mapping[str, Any], factor: str) -> str:
    """Of a configuration; of several sweeps together, one may lack a factor."""
    return text_of(factors[factor]) if factor in factors else "-"


def by_factors(
    summary: SweepSummary, columns: Sequence[str], rows: Rows
) -> tuple[tuple[str, ...], Rows, set[str]]:
    """A table with a column for every factor in place of the names of configurations, which are its
    first column, if it has them and there are factors; and which columns are set to the left."""
    heads = factor_heads(summary, columns[1:])
    if columns[0] != "configuration" or not heads:
        return tuple(columns), rows, set(LEFT)
    values = {study.name: study.factors for study in summary.studies}
    split = []
    for name, *rest in rows:
        split.append((*(level_text(values[name], factor) for factor in heads), *rest))
    left = set(LEFT)
    for factor, head in heads.items():
        levels = [factors[factor] for factors in values.values() if factor in factors]
        if all(map(is_number, levels)):
            left.discard(head)
        else:
            left.add(head)
    return (*heads.values(), *columns[1:]), split, left
