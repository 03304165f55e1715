"""What is printed on: a console that obeys no user's text, and tables without lines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trainables.text import visible

# "fold": to the left, and goes on in the next line where there is no room; the others are never cut
Setting = Literal["left", "right", "fold"]

GAP = 2  # characters between columns
FOLDED = 20  # characters of a column at least, where its texts are broken


class VisibleConsole(Console):
    """Shows control characters in texts, whoever wrote them; its own (colours, the cursor) are no
    texts."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def grid(
    columns: Mapping[str, Setting], rows: Iterable[Sequence[str]], has_head: bool = True
) -> "Grid":
    """A table without lines, of texts as they are shown: escapes take room. `columns`: head → how
    it is set; the first names the rows."""
    return Grid(dict(columns), [tuple(map(visible, row)) for row in rows], has_head)


@dataclass(frozen=True)
class Grid:
    """See `grid`. Columns that have no room go on below, behind the first one again."""

    columns: dict[str, Setting]
    rows: list[tuple[str, ...]]
    has_head: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, part in enumerate(self._parts(options.max_width)):
            if number:
                yield Text()
            yield self._table(part)

    def _parts(self, width: int) -> list[list[int]]:
        """Positions of columns that fit beside each other."""
        least = [self._least(place) for place in range(len(self.columns))]
        parts, used = [[0]], least[0]
        for place in range(1, len(self.columns)):
            used += GAP + least[place]
            if used > width and len(parts[-1]) > 1:
                parts.append([0])
                used = least[0] + GAP + least[place]
            parts[-1].append(place)
        return parts

    def _least(self, place: int) -> int:
        """Characters that a column needs; one that may be broken needs some of them only."""
        head, setting = list(self.columns.items())[place]
        texts = [*(head.split("\n") if self.has_head else []), *(row[place] for row in self.rows)]
        longest = max(map(cell_len, texts), default=0)
        return min(longest, FOLDED) if setting == "fold" else longest

    def _table(self, part: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=self.has_head)
        for place in part:
            head, setting = list(self.columns.items())[place]
            justify: Literal["left", "right"] = "right" if setting == "right" else "left"
            table.add_column(
                Text(head),
                justify=justify,
                no_wrap=setting != "fold",
                overflow="fold",
                min_width=self._least(place),
            )
        for row in self.rows:
            table.add_row(*(Text(row[place]) for place in part))
        return table
