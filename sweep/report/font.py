"""The font of figures: DejaVu Sans, matplotlib's own, without the letters of most of the world's
scripts.

A PDF holds the letters that its figure has, so the font is cut down to these for every one. Of 6,000
letters that takes as long as to draw the figure; of these 600, a quarter of it. For a letter that is
not among them, DejaVu Sans itself is asked.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import matplotlib
from fontTools import subset
from matplotlib import font_manager

from trainables.config.identity import key_of

WHOLE, CUT = "DejaVu Sans", "DejaVu Sans of emm-sweep"

LETTERS = (
    *range(0x20, 0x180),  # of Latin script
    *range(0x370, 0x400),  # of Greek script
    *range(0x2010, 0x2030),  # dashes, quotation marks, …
    *range(0x2070, 0x20A0),  # raised and lowered
    *map(ord, "←↑→↓−≈≤≥∞"),
)


def families() -> list[str]:
    """What a setting of matplotlib's is to be, "font.family". The font is cut once for each version
    of matplotlib, and kept in its cache; where that can't be done, it is the whole one."""
    key = key_of({"matplotlib": matplotlib.__version__, "letters": LETTERS})[:12]
    path = Path(matplotlib.get_cachedir(), f"emm-sweep-{key}.ttf")
    try:
        if not path.exists():
            _cut(path)
        font_manager.fontManager.addfont(path)
    except (OSError, RuntimeError):  # no room, or no font
        return [WHOLE]
    return [CUT, WHOLE]


def _path(family: str) -> str:
    return font_manager.findfont(font_manager.FontProperties(family=[family]))


def _cut(path: Path) -> None:
    """Under its name when it is complete: several processes may be at it."""
    options = subset.Options(drop_tables=["FFTM"], layout_features=["*"], notdef_outline=True)
    number, draft = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    os.close(number)
    try:
        with subset.load_font(_path(WHOLE), options) as font:
            cutter = subset.Subsetter(options)
            cutter.populate(unicodes=LETTERS)
            cutter.subset(font)
            for record in font["name"].names:
                if record.nameID in (1, 4, 16):  # family, full name, family again
                    record.string = CUT
                elif record.nameID == 6:  # for PostScript
                    record.string = CUT.replace(" ", "")
            font.save(draft)
        os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
