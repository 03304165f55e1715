"""Tables for a paper."""

import re
import unicodedata
from collections.abc import Collection, Sequence

import pandas as pd

from sweep.report.rows import LEFT
from sweep.report.tables import Rows

INTERVAL = re.compile(r"(-?[\d.,]+(?:e[-+]?\d+)?) to (-?[\d.,]+(?:e[-+]?\d+)?)")

# what pandas leaves as it is: some fonts lack it outside of mathematics
SIGNS = str.maketrans({"<": "$<$", ">": "$>$", "|": "$|$", "×": r"$\times$"})

# categories of Unicode: control and format, lone surrogates, line and paragraph ends
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def latex(columns: Sequence[str], rows: Rows, left: Collection[str] = LEFT) -> str:
    """A booktabs table, with the columns `left` set to the left; what is special to LaTeX is
    escaped, and what is not to be seen (line ends, control characters) is spelt out."""
    heads = list(map(_spelt_out, columns))
    cells = pd.DataFrame([map(_spelt_out, row) for row in rows], columns=heads)
    table = cells.style.hide(axis="index")
    table.format(_typeset, escape="latex").format_index(_typeset, axis=1, escape="latex")
    alignment = "".join("l" if column in left else "r" for column in columns)
    return str(table.to_latex(hrules=True, column_format=alignment))


def _spelt_out(text: str) -> str:
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in UNSEEN else letter for letter in text
    )


def _typeset(escaped: object) -> str:
    """A cell that pandas has escaped; an interval of two numbers gets a dash."""
    escaped = str(escaped)
    if INTERVAL.fullmatch(escaped):
        escaped = escaped.replace(" to ", "--")
    return escaped.translate(SIGNS)
