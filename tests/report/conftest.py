"""What several files of tests of the report look at."""

import pytest

from sweep.analysis.summary import SweepSummary, summary_of
from tests.summaries import SPACE, curve, failure, record
from trainables.trial.result import TrialRecord


@pytest.fixture(scope="module")
def real() -> SweepSummary:
    """Judged by the sweep's own search: one study is found, one still searches; a trial failed, one
    runs."""
    results = [
        *curve("width=8", 30, (8, 24, 28, 32, 36, 40)),
        *curve("width=16", 60, (8, 32)),
        failure("width=16", 128, 2),
    ]
    return summary_of(SPACE, results[::-1], [TrialRecord(**record("width=16", 64, 3))])
