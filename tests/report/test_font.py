"""The font of figures: a cut of matplotlib's own, in which letters look and stand as in the whole."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from sweep.report.canvas import Canvas
from sweep.report.font import CUT, LETTERS, WHOLE, families
from sweep.report.style import STYLE, as_pdf, as_png

ROOT = Path(__file__).parents[2]


def path_of(family):
    return font_manager.findfont(font_manager.FontProperties(family=[family]))


def fonts():
    return [font_manager.get_font(path_of(family)) for family in (CUT, WHOLE)]


def test_it_is_a_tenth_of_the_whole_and_has_all_of_its_letters():
    assert STYLE["font.family"] == [CUT, WHOLE]
    cut, whole = (font.get_charmap() for font in fonts())
    there = [letter for letter in LETTERS if letter in whole]
    assert set(there) == set(cut) & set(LETTERS)
    assert len(there) > 450
    assert {ord(letter) for letter in "aÅřß€Ωσₘₑ−≤×…"} <= set(cut) | {ord("€")}
    sizes = [os.path.getsize(path_of(name)) for name in (CUT, WHOLE)]
    assert sizes[0] < 0.2 * sizes[1]


def test_letters_are_as_wide_as_in_the_whole():
    cut, whole = fonts()
    for font in (cut, whole):
        font.set_size(10, 100)
    for letter in "AZaz09.,-Å Ωₘ−":
        widths = [font.load_char(ord(letter)).linearHoriAdvance for font in (cut, whole)]
        assert widths[0] == widths[1] > 0


def shown(names, text):
    with matplotlib.rc_context({"font.family": names}):
        figure = Figure((4, 0.5))
        figure.text(0.02, 0.3, text, fontsize=12, parse_math=False)
        return figure


@pytest.mark.parametrize("text", ["AVATAR To 95 % of N = 1,024 × 0.5", "ширина ネ width"])
def test_a_text_looks_as_in_the_whole(tmp_path, text):
    """Also one of letters that are not in the cut."""
    pixels = []
    for names in (families(), [WHOLE]):
        (tmp_path / "one.png").write_bytes(as_png(shown(names, text)))
        pixels.append(np.asarray(Image.open(tmp_path / "one.png").convert("L")).astype(int))
    assert (pixels[1] < 128).sum() > 500
    assert np.mean(abs(pixels[0] - pixels[1]) > 64) < 0.002


def test_a_pdf_embeds_it_as_truetype():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pdf = as_pdf(shown(families(), "width=8"))
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf


def test_it_is_cut_once_and_done_without_where_it_cannot_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "get_cachedir", lambda: str(tmp_path))
    assert families() == [CUT, WHOLE]
    (kept,) = tmp_path.iterdir()
    first = kept.stat().st_mtime_ns
    assert families() == [CUT, WHOLE]
    assert kept.stat().st_mtime_ns == first
    assert list(tmp_path.iterdir()) == [kept]
    kept.write_bytes(b"no font")
    assert families() == [WHOLE]
    monkeypatch.setattr(matplotlib, "get_cachedir", lambda: str(kept))  # a file: no room in it
    assert families() == [WHOLE]


def test_several_processes_may_cut_it_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path)}
    code = "from sweep.report.font import families; print(*families(), sep='|')"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [one.communicate()[0].strip() for one in begun] == [f"{CUT}|{WHOLE}"] * 3
    assert len(list(tmp_path.glob("emm-sweep-*"))) == 1


def test_in_the_axes_of_a_user_mathematics_stands_for_letters_that_their_font_may_lack():
    assert Canvas().r_mem == "Rₘₑₘ"
    assert Canvas(Figure().add_subplot()).r_mem == r"$\mathrm{R_{mem}}$"
