"""A sweep as a notebook shows it: the table of verdicts, below the question."""

import io
from dataclasses import fields

from sweep.analysis.summary import SweepSummary
from sweep.report import html
from sweep.report.console import Setting, VisibleConsole, grid
from sweep.report.rows import CONFIGURATIONS, LEFT, configuration_rows
from trainables.text import visible

WIDE = 10_000  # characters: no row is broken


class Sweep(SweepSummary):
    """A summary that shows itself, as text and as HTML, in which every text is escaped."""

    def __repr__(self) -> str:
        settings: dict[str, Setting] = {
            column: "left" if column in LEFT else "right" for column in CONFIGURATIONS
        }
        screen = VisibleConsole(file=io.StringIO(), width=WIDE, force_jupyter=False)
        with screen.capture() as captured:
            screen.print(grid(settings, configuration_rows(self)))
        table = [line.rstrip() for line in captured.get().splitlines()]
        return "\n".join([visible(self._head), self._what, *table, *map(visible, self._notes)])

    def _repr_html_(self) -> str:
        return html.page(
            "notebook.html",
            head=self._head,
            what=self._what,
            columns=CONFIGURATIONS,
            rows=configuration_rows(self),
            left=LEFT,
            notes=self._notes,
        )

    @property
    def _head(self) -> str:
        question = self.space.question
        return f"{self.name}: {question}" if question else self.name

    @property
    def _what(self) -> str:
        in_features = " in features" if self.eye == "features" else ""
        return f"EMM at target R_mem {self.space.search.target:g}{in_features}"

    @property
    def _notes(self) -> list[str]:
        return [*self.notes, *(f"passed over: {line}" for line in self.damaged)]


def shown(summary: SweepSummary) -> Sweep:
    return Sweep(**{field.name: getattr(summary, field.name) for field in fields(summary)})
