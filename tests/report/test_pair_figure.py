"""The figure of two models of disjoint images."""

import pytest

from sweep.report.figures import figures_of
from tests.summaries import VERDICTS, study, sweep_of, trial


def test_agreement_stands_beside_r_mem() -> None:
    trials = [
        trial("a", 16, 0, 450, pair_agreement=0.01),
        trial("a", 64, 1, 50, pair_agreement=0.2),
        trial("a", 64, 2, 100, pair_agreement=0.4),
        trial("a", 32, 3),
    ]
    sweep = sweep_of(study("a", VERDICTS["found"], trials), study("b", VERDICTS["searching"]))
    axes = figures_of(sweep)["pairs"]().axes[0]
    r_mem, means, same, means_same = (line.get_xydata().tolist() for line in axes.lines)
    assert r_mem == [[16, 0.9], [64, 0.1], [64, 0.2]], "of the trials that have a second model"
    assert same == [[16, 0.01], [64, 0.2], [64, 0.4]]
    assert means == [[16, 0.9], [64, pytest.approx(0.15)]]
    assert means_same == [[16, 0.01], [64, pytest.approx(0.3)]]
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a: R_mem", "a: same image"]


def test_without_a_second_model_there_is_none() -> None:
    assert "pairs" not in figures_of(sweep_of(study("a", VERDICTS["found"], [trial("a", 16, 0)])))
