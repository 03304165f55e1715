"""What is printed on: a console that obeys no user's text, and tables without lines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trainables.text import visible

# "fold": to the left, and goes on in the next line where there is no room; the others are never cut
Setting = Literal["left", "right", "fold"]


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
) -> Table:
    """A table without lines, of texts as they are shown: escapes take room. `columns`: head → how
    it is set."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=has_head)
    for head, setting in columns.items():
        justify: Literal["left", "right"] = "right" if setting == "right" else "left"
        table.add_column(Text(head), justify=justify, no_wrap=setting != "fold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table
