"""Tables for a paper."""

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from sweep.report.rows import LEFT, Rows

LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    letter: f"${letter}$" for letter in "<>|"
}

LATEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
}

INTERVAL = re.compile(r"(-?[\d.,]+(?:e[-+]?\d+)?) to (-?[\d.,]+(?:e[-+]?\d+)?)")

UNSEEN = (
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
)  # categories of Unicode: control and format, lone surrogates, line and paragraph ends


def latex(columns: Sequence[str], rows: Rows) -> str:
    """A booktabs table; what is special to LaTeX is escaped."""
    text = pd.DataFrame(
        [map(_in_latex, row) for row in rows], columns=list(map(_in_latex, columns))
    )
    alignment = "".join("l" if column in LEFT else "r" for column in columns)
    return str(text.to_latex(index=False, column_format=alignment))


def _in_latex(text: str) -> str:
    """A cell: an interval of two numbers has a dash, what is not to be seen (line ends, control
    characters) is spelt out."""
    if INTERVAL.fullmatch(text):
        text = text.replace(" to ", "--")
    return "".join(LATEX.get(letter, letter) for letter in "".join(map(_visible, text)))


def _visible(letter: str) -> str:
    return repr(letter)[1:-1] if unicodedata.category(letter) in UNSEEN else letter
