"""What a person reads in the table, on the page and in the figures is what the summary says."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sweep.analysis.contrasts import Contrast
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary, summary_of
from sweep.report import figures, page as page_module
from sweep.report.factors import factor_heads
from sweep.report.figures import name_of
from sweep.report.files import cell, write_report
from sweep.report.latex import latex
from sweep.report.page import report_page
from sweep.report.ratios import contrast_lines
from sweep.report.rows import caption
from sweep.report.table import table
from sweep.search.rules import Options, Verdict
from sweep.search.words import ends_text
from tests.results import caution_lines
from tests.summaries import (
    NAMES,
    SPACE,
    VERDICTS,
    Page,
    curve,
    failure,
    found,
    page_of,
    printed,
    record,
    study,
    sweep_of,
    trial,
)
from trainables.measure.r_mem import r_mem_interval
from trainables.text import amount, human
from trainables.trial.result import DataSummary, FinalMeasurement, Result, TrialRecord


@pytest.fixture(scope="module")
def index(real: SweepSummary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `real`."""
    return write_report(real, tmp_path_factory.mktemp("sweep") / "new" / "report")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.456, "5.46"),
        (35.24, "35.2"),
        (99.96, "100"),
        (1064.0, "1,060"),
        (12_345, "12,300"),
        (0.995, "0.995"),
        (0, "0"),
        (-12.34, "-12.3"),
        (1e-9, "1e-09"),
        (1.26e30, "1.26e+30"),
        (math.inf, "inf"),
    ],
)
def test_an_emm_has_three_significant_digits(value: float, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (640, "640"),
        (25_600, "25.6 k"),
        (999_900, "1 M"),
        (1_200_000, "1.2 M"),
        (3.1e9, "3.1 G"),
    ],
)
def test_numbers_of_images(count: float, text: str) -> None:
    assert human(count) == text


def test_every_number_on_the_page_is_the_summarys(real: SweepSummary, index: Path) -> None:
    page, said = Page(index.read_text()), real.as_json()["configurations"]
    assert [row[:7] for row in page.tables["configurations"][1:]] == [
        [
            c["name"],
            c["verdict"],
            amount(c["emm"]),
            f"{amount(c['emm_low'])} to {amount(c['emm_high'])}",
            f"{amount(c['alone_low'])} to {amount(c['alone_high'])}",
            str(count),
            images,
        ]
        for c, count, images in zip(said, (6, 3), ("154 k", "76.8 k"), strict=True)
    ]
    assert [c["verdict"] for c in said] == ["found", "searching"]
    rows = {(name, int(n), int(seed)): rest for name, n, seed, *rest in page.tables["trials"][1:]}
    trials = {(c["name"], t["n"], t["seed"]): t for c in said for t in c["trials"]}
    assert list(rows) == sorted(
        trials, key=lambda key: (NAMES.index(key[0]), key[1], key[2])
    )  # by N
    for key, (r_mem, interval, images, state) in rows.items():
        t = trials[key]
        assert state == t["state"]
        assert images == human(t["images_trained"])
        if t["r_mem"] is None:
            assert (r_mem, interval) == ("-", "-")
        elif t["right_censored"]:
            assert (r_mem, interval) == (f">= {t['r_mem']:.3f}", f"from {t['r_mem_low']:.3f}")
        else:
            assert (float(r_mem), interval) == (
                t["r_mem"],
                f"{t['r_mem_low']:.3f} to {t['r_mem_high']:.3f}",
            )
    assert {t["state"] for t in trials.values()} == {"complete", "failed", "running"}
    keys = {row[-1] for row in page.tables["provenance"][1:]}
    assert keys == {t["training_key"] for t in trials.values() if t["state"] != "running"}


def test_files_beside_the_page(real: SweepSummary, index: Path, tmp_path: Path) -> None:
    assert json.loads((index.parent / "report.json").read_text()) == real.as_json()
    rows = list(csv.DictReader((index.parent / "trials.csv").read_text().splitlines()))
    assert [(r["configuration"], int(r["n"])) for r in rows[:2]] == [
        ("width=8", 8),
        ("width=8", 24),
    ]
    assert [float(r["r_mem"]) for r in rows[:6]] == [
        t["r_mem"] for t in real.as_json()["configurations"][0]["trials"]
    ]
    names = {path.name for path in index.parent.iterdir()}
    figures = {
        f"{name}.{kind}"
        for name in ("emm", "profile", "cost", "study-01-width-8", "study-02-width-16")
        for kind in ("pdf", "png")
    }
    kinds = ("configurations", "scale", "profile", "lengths", "onset", "trials")
    tables = {f"{name}.tex" for name in (*kinds, "contrasts", "interactions")}
    beside = {"report.json", "trials.csv", "contrasts.csv", "interactions.csv", "figures.json"}
    assert names == {"index.html", *beside, *figures, *tables}
    before = {name: (index.parent / name).read_bytes() for name in names}
    write_report(real, tmp_path)
    assert {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    } == before  # nothing but the summary decides
    assert b"\x89PNG" in before["emm.png"][:8]
    assert before["emm.pdf"].startswith(b"%PDF")
    assert b"/Type3" not in before["emm.pdf"]  # publishers refuse it


# ---------------------------------------------------------------- safety


def test_nothing_is_loaded_from_elsewhere(index: Path) -> None:
    page = Page(index.read_text())
    assert [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")] == []
    sources = [
        attributes[key] or ""
        for _, attributes in page.tags
        for key in ("src", "href")
        if key in attributes and not (attributes[key] or "").startswith("#")
    ]
    assert len(sources) == 3 + len(NAMES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    policy = [
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1
    assert "private" not in index.read_text()  # the host is no part of a report that is given away


def test_users_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    name = '<script>$\\frac$</script> & "[red]b[/red]"'
    space = SPACE.model_copy(update={"question": "<img src=http://x/y> & more?"})
    results = [trial(name, 20, 0), failure(name, 30, 1, "<b>bad</b> [bold]")]
    summary = sweep_of(
        study(name, VERDICTS["found"], results), study("../b/c", VERDICTS["searching"]), space=space
    )
    page = page_of(summary, tmp_path)
    assert {"script", "b"} & {tag for tag, _ in page.tags} == {"b"}  # the explanation's own
    assert not any("http" in (attributes.get("src") or "") for _, attributes in page.tags)
    assert page.tables["configurations"][1][0] == name
    assert "<img src=http://x/y> & more?" in page.text
    assert "<b>bad</b> [bold]" in page.text
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
    assert "[red]b[/red]" in printed(summary, 200)
    assert "<b>bad</b> [bold]" in printed(summary, 200)


def test_a_sweep_of_exact_copies_has_a_report(tmp_path: Path) -> None:
    """As of the closed-form optimum: distances are 0, R_mem is 1; or 0, where more than half of the
    images are doubles."""
    copies = {
        "median_d1": 0.0,
        "nn_distance": 0.0,
        "null_rate": 0.0,
        "distinct_expected": 0.0,
        "images_trained": 0,
    }
    copied = [trial("width=8", n, seed, 500, **copies) for seed, n in enumerate((8, 100, 256))]
    nothing = [
        trial("width=16", n, seed, 0, **{**copies, "ceiling": 0.0})
        for seed, n in enumerate((8, 12, 100))
    ]
    summary = summary_of(SPACE, [*copied, *nothing], [])
    assert [study.verdict.state for study in summary.studies] == ["above_range", "below_range"]
    page = page_of(summary, tmp_path)
    assert [row[1:4] for row in page.tables["scale"][1:]] == [["0", "0", "0.000"]] * 2
    assert "Beside each EMM" in printed(summary)


def test_only_intervals_get_a_dash_in_latex() -> None:
    rows = [("from 2 to 3", "5.10 to 8.90"), ("up to 1.89", "1,060 to 1e+16")]
    text = latex(("ratio", "95 % interval"), rows)
    for word in ("from 2 to 3", "5.10--8.90", "up to 1.89", "1,060--1e+16"):
        assert f"{word} " in text


def test_what_is_not_to_be_seen_is_spelt_out_in_latex() -> None:
    text = latex(
        ("\x07 head\n",), [("a\n\nb",), ("\x1b[2J",), ("\u202eabc",), ("\ud800",), ("σ é",)]
    )
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    for word in (
        r"\textbackslash x07 head\textbackslash n",
        r"a\textbackslash n\textbackslash nb",
        r"\textbackslash x1b[2J",
        r"\textbackslash u202eabc",
        "σ é",
    ):
        assert f"{word} " in text
    text.encode()


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("state", "emm", "interval"),
    [
        ("found", "35.2", "29.1 to 42.0"),
        ("below_range", "< 8", "up to 5.46"),
        ("above_range", "> 256", "from 307"),
        ("unresolved", "61.0", "30.0 to 120"),
        ("searching", "-", "-"),
    ],
)
def test_how_a_verdict_is_said(state: str, emm: str, interval: str, tmp_path: Path) -> None:
    summary = sweep_of(study("a", VERDICTS[state], [trial("a", 20, 0)]))
    row = page_of(summary, tmp_path).tables["configurations"][1]
    own = ends_text(*summary.studies[0].alone)
    assert row == ["a", state, emm, interval, own, "1", "25.6 k", VERDICTS[state].reason]
    text = " ".join(printed(summary).split())
    assert f"a {state} {emm} {interval} {own} 1 25.6 k" in text
    assert (f"a: {state}, {VERDICTS[state].reason}" in text) is (
        state in ("unresolved", "searching")
    )
    said = caption(summary.studies[0])
    assert said.startswith(f"{state}: ")
    assert (f"EMM {emm}" in said) is (emm != "-")


def test_contrasts_are_ratios_of_emms() -> None:
    def logistic(name: str, width: int, emm: float) -> list[Result]:
        return curve(f"width={width}", emm, (8, 16, 24, 28, 32, 36, 40, 60, 80))

    summary = summary_of(SPACE, [*logistic("a", 8, 24), *logistic("b", 16, 48)], [])
    (one,) = summary.contrasts
    (count, pairs, line) = contrast_lines(summary)
    assert count.startswith("1 contrast is looked at, against a first level")
    assert pairs.startswith("1 pair: contrasts.csv has all")
    medians = [study.verdict.emm or 0.0 for study in summary.studies]
    assert one.ratio == pytest.approx(medians[1] / medians[0], rel=0.03)
    assert one.low < 2 < one.high
    assert (one.told == "yes") == (one.low > 1)
    assert line.startswith(
        f"EMM of width=16 / EMM of width=8: {one.ratio:.2f}, 95 % interval {one.low:.2f} to {one.high:.2f}"
    )
    assert ("not told apart" in line) == (one.told == "no")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(1.01, 3.0, "yes"), (0.3, 0.99, "yes"), (0.99, 1.01, "no"), (0.5, 1.0, "no")],
)
def test_emms_are_told_apart_where_the_interval_excludes_one(
    low: float, high: float, told: str
) -> None:
    """The only one is told apart by its own interval; one of several by what holds together."""
    ratio = math.sqrt(low * high)
    one = Contrast("a", "b", ratio, low, high, together_low=low, together_high=high)
    assert one.told == one.inverse.told == told
    back = one.inverse.inverse
    assert (back.a, back.b) == ("a", "b")
    assert (back.ratio, back.low, back.together_high) == pytest.approx((ratio, low, high))
    wider = replace(one, together_low=low / 9, together_high=high * 9)
    assert wider.told == wider.inverse.told == ("alone" if told == "yes" else "no")
    assert (wider.inverse.a, wider.inverse.b) == ("b", "a")
    assert (wider.inverse.low, wider.inverse.together_high) == (1 / high, 9 / low)


def test_warnings_where_a_trap_applies() -> None:
    def said(verdict: Verdict, *results: Result) -> str:
        return "\n".join(caution_lines(sweep_of(study("a", verdict, list(results)))))

    near = VERDICTS["found"]
    assert said(near, trial("a", 35, 0)) == ""
    rising = [trial("a", n, i, r_mem_half=0.6, r_mem_last=0.9) for i, n in enumerate((30, 40))]
    assert (
        "R_mem rises late: 0.60 at half of the training, 0.90 at its end (mean of 2 trials)"
        in said(near, *rising)
    )
    assert said(near, trial("a", 200, 0, r_mem_half=0.1, r_mem_last=0.9)) == ""  # far from the EMM
    assert (
        said(near, trial("a", 35, 0, r_mem_half=0.84, r_mem_last=0.9)) == ""
    )  # within the counting error of 200 images
    assert "reaches only R_mem 0.80 at N = 40, below the target 0.9" in said(
        near, trial("a", 40, 0, ceiling=0.8)
    )
    copies = DataSummary(source="faces", digest="e", size=60, duplicates=7)
    assert said(near, trial("a", 35, 0, data=copies)).splitlines() == [
        "faces: 7 of 60 images equal another one; copies of them never count as memorized",
        "a: N = 35 is 59% of the 60 images that there are; above half, the verdict is for this data set only",
    ]
    few = DataSummary(source="faces", digest="e", size=300, duplicates=0)
    large = (
        "a: N = 256 is 85% of the 300 images that there are; above half, the verdict is for this"
    )
    above = said(VERDICTS["above_range"], trial("a", 256, 0, 500, data=few))
    assert above == f"{large} data set only"
    assert (
        said(near, failure("a", 9, 0), failure("a", 9, 1), trial("a", 35, 2))
        == "a: 2 trials failed: non-finite loss"
    )


# ---------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_plain_terminal(real: SweepSummary, width: int) -> None:
    text = printed(real, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()  # no colour, no boxes
    assert "\x1b" not in text
    lines = text.split("width=16")[0].splitlines()[-6:]
    assert [int(line.removeprefix("width=8").split()[0]) for line in lines[:-1]] == [
        8,
        24,
        28,
        32,
        36,
    ]


def test_long_names_and_many_configurations_fit_too() -> None:
    names = [
        f"network.kind=ddpmpp,multipliers=[1,2,2,2],width={i},attention=[16]" for i in range(40)
    ]
    summary = sweep_of(
        *(
            study(n, VERDICTS["unresolved"], [trial(n, 20_000, 0), failure(n, 4, 1, "x " * 90)])
            for n in names
        )
    )
    lines = printed(summary).splitlines()
    assert max(map(len, lines)) <= 80
    assert "width=39" in "".join(line.strip() for line in lines)


def test_nothing_is_known_yet(tmp_path: Path) -> None:
    summary = summary_of(SPACE, [], [])
    assert {one.verdict.reason for one in summary.studies} == {"no trial has started"}
    assert "no trial has started" in printed(summary)
    page = page_of(summary, tmp_path)
    assert [row[:4] for row in page.tables["configurations"][1:]] == [
        [name, "searching", "-", "-"] for name in NAMES
    ]
    assert page.tables.keys() <= {"configurations", "varied", "differing", "others"}
    assert "no trial has finished" in page.text
    assert (
        (tmp_path / "trials.csv").read_text().startswith("configuration,width,n,seed,state,r_mem,")
    )
    assert table(summary) is not None


@pytest.fixture(scope="module")
def rich() -> SweepSummary:
    """Two configurations on data of their own, the second of twice the EMM; of a target of .8, with
    last measurements, trials that failed, and one that was left when its study was decided."""
    sizes = (8, 16, 24, 28, 32, 36, 40, 60, 80)
    other = DataSummary(source="faces", digest="e" * 64, size=5000, duplicates=7)
    hardware = {"device": "cuda", "name": "H100", "threads": "3", "torch": "2.9", "host": "h"}
    more = {"seconds": 150.0, "finished_at": "2026-02-03T04:05:06+00:00", "hardware": hardware}
    a = curve("width=8", 24, sizes)
    b = [r.model_copy(update={"data": other, **more}) for r in curve("width=16", 48, sizes)]
    lost = failure("width=16", 50, 20).model_copy(update={"data": other, **more})
    running = TrialRecord(**record("width=8", 29, 30))
    finals = {
        b[4].training_key: FinalMeasurement(r_mem=0.97, n_samples=10_000, n_memorized=9_700),
        a[3].training_key: FinalMeasurement(r_mem=0.75, n_samples=4000, n_memorized=3000),
    }
    search = SPACE.search.model_copy(update={"target": 0.8})
    space = SPACE.model_copy(update={"search": search})
    return summary_of(space, [*a, *b, lost], [running], finals=finals)


def test_what_stands_beside_the_emms_of_two_data_sets(rich: SweepSummary, tmp_path: Path) -> None:
    page, text = page_of(rich, tmp_path), printed(rich, 200)
    one, two = rich.studies
    (ratio,) = rich.contrasts
    assert (one.verdict.state, two.verdict.state) == ("found", "found")
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
    assert page.tables["contrasts"][1:] == [
        ["width=16", "width=8", f"{ratio.ratio:.2f}", interval, interval, "yes", "other"]
    ]
    assert ratio.ratio == pytest.approx(2, rel=0.15)
    assert f"EMM of width=16 / EMM of width=8: {ratio.ratio:.2f}, 95 % interval {interval}" in text
    assert f"together {interval} (told apart; on other data)" in text
    assert page.tables["data"][1:] == [
        ["digits", "1,797", "0", "d" * 64],
        ["faces", "5,000", "7", "e" * 64],
    ]
    rows = [row for row in page.tables["provenance"][1:] if row[0] == "width=16"]
    assert [int(row[1]) for row in rows] == sorted([8, 16, 24, 28, 32, 36, 40, 50, 60, 80])
    keys = {r.spec.n: r.training_key for r in two.results}
    assert rows[7] == [
        *("width=16", "50", "20", "0.010", "150", "2026-02-03T04:05:06+00:00"),
        *("device cuda, name H100, threads 3, torch 2.9", keys[50]),
    ]
    states = {(row[0], row[1]): row[-1] for row in page.tables["trials"][1:]}
    assert states["width=8", "29"] == "stopped", "its study was decided without it"
    assert states["width=16", "50"] == "failed"
    assert states["width=8", "28"] == "complete"
    for said in (text, page.text):
        low, high = r_mem_interval(3000, 4000)
        finals = [line for line in said.splitlines() if "measured again: R_mem" in line]
        assert [line.strip().partition(":")[0] for line in finals] == ["width=16", "width=8"]
        assert "width=16: N=32 seed=4 measured again: R_mem 0.9700, " in finals[0]
        assert finals[1].strip() == (
            "width=8: N=28 seed=3 measured again: R_mem 0.7500, "
            f"95 % interval {low:.4f} to {high:.4f}, 4,000 images"
        )
        assert "faces: 7 of 5,000 images equal another one" in said
    assert "EMM at target R_mem 0.8\n" in text
    assert "target R_mem 0.8," in page.text
    spread = page.tables["seeds"][1]
    assert spread[0] == "width=8"
    assert " ".join(spread) in " ".join(text.split()), "the table of the seeds"
    names = [line.split()[0] for line in text.splitlines() if line.startswith("width=")]
    assert names == ["width=8", "width=16"] * 5, "of trials once for each configuration"


def test_tables_for_papers_are_those_of_the_page(rich: SweepSummary, tmp_path: Path) -> None:
    page = page_of(rich, tmp_path)
    for name, alignment in (
        ("configurations", "rlrrrrr"),
        ("contrasts", "llrrrll"),
        ("trials", "rrrrrrl"),
    ):
        lines = (tmp_path / f"{name}.tex").read_text().splitlines()
        assert lines[0] == rf"\begin{{tabular}}{{{alignment}}}"
        rows = [line.removesuffix(r"\\").split("&") for line in lines if "&" in line]
        plain = [
            [text.strip().replace("--", " to ").replace("$", "") for text in row]
            for row in rows[1:]
        ]
        cut = [row[: len(rows[0])] for row in page.tables[name][1:]]
        if name != "contrasts":  # a column for the factor, in place of the configuration's name
            assert rows[0][0].strip() == "width"
            cut = [[row[0].removeprefix("width="), *row[1:]] for row in cut]
        assert [[c.replace("> =", ">=") for c in row] for row in plain] == cut


def test_a_page_holds_so_many_figures_and_galleries_come_last(
    rich: SweepSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In base64 a figure of 3 bytes takes 4."""
    monkeypatch.setattr(page_module, "PAGE_BYTES", 4001)
    one = name_of("gallery", 1, rich.studies[0].name)
    images = {one: b"g" * 300, "emm": b"e" * 1200, "cost": b"c" * 900, "contrasts": b"d" * 900}
    page = Page(report_page(rich, images, "none"))
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        "EMM of every configuration, with its 95 % interval",
        "Ratios of EMMs against the first level, with their 95 % intervals: thick alone, thin together",
        "What every configuration cost",
    ]
    assert "1 figures are only there" in page.text
    monkeypatch.setattr(page_module, "PAGE_BYTES", 4401)
    whole = Page(report_page(rich, images, "none"))
    assert sum(tag == "img" for tag, _ in whole.tags) == 4
    assert "figures are only there" not in whole.text


def test_one_that_is_too_large_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "PAGE_BYTES", 1000)
    images = {"emm": b"e" * 300, "cost": b"c" * 900, "gallery-1": b"g" * 300}
    assert list(page_module._fitting(images)) == ["emm", "gallery-1"]


def test_every_factor_has_a_head_of_its_own() -> None:
    summary = sweep_of(study("a", VERDICTS["found"], factors={"n": 1, "factor_n": 2, "width": 8}))
    heads = factor_heads(summary, {"n", "seed"})
    assert heads == {"n": "factor_factor_n", "factor_n": "factor_n", "width": "width"}


def test_the_seeds_of_many_sizes_are_cut_nowhere() -> None:
    """And a bound is told from a point."""
    sizes = (12, 20, 26, 30, 34, 38, 45, 60)
    one, other = (curve(NAMES[0], 35, sizes) for _ in range(2))
    again = [
        r.model_copy(update={"spec": r.spec.model_copy(update={"seed": 100 + r.spec.seed})})
        for r in other
    ]
    again[1] = again[1].model_copy(update={"right_censored": True})
    lines = printed(summary_of(SPACE, [*one, *again], []), 80).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert f"N = 20: {one[1].r_mem:.3f} >={one[1].r_mem:.3f}; N = 26: " in text
    assert f"N = 60: {one[-1].r_mem:.3f} {one[-1].r_mem:.3f}" in text


def test_forty_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        figures, "study_figure", lambda *_: Figure((1, 1))
    )  # forty real ones take half a minute
    monkeypatch.setattr("sweep.report.drawn.FEW", 1000)  # these can't be drawn elsewhere
    verdicts = [found(10.0 + i, 9.0 + i, 12.0 + i) for i in range(40)]
    summary = sweep_of(
        *(study(f"c{i}", v, [trial(f"c{i}", 20, 0)]) for i, v in enumerate(verdicts))
    )
    page = page_of(summary, tmp_path)
    assert [row[2] for row in page.tables["configurations"][1:]] == [
        amount(10 + i) for i in range(40)
    ]
    assert sum(tag == "img" for tag, _ in page.tags) == 4 + 40
    assert len(list(tmp_path.glob("study-*.pdf"))) == 40
    assert (tmp_path / "index.html").stat().st_size < 10e6


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_as_a_formula(sign: str) -> None:
    assert cell(f"{sign}1") == f"'{sign}1"
    assert cell(f"1{sign}1") == f"1{sign}1"


def test_names_and_causes_are_no_formulas_of_a_spreadsheet(tmp_path: Path) -> None:
    cause = "=HYPERLINK(1)"
    options, verdict = Options(8, 256), Verdict("unresolved", 61.0, 30.0, 120.0, 0.4, "none", 2)
    study = StudySummary(
        "-2+3", {}, verdict, options, [failure("-2+3", 8, 0, cause), trial("-2+3", 16, 1)], []
    )
    write_report(SweepSummary("s", SPACE, [study]), tmp_path)
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [(row["configuration"], row["cause"], row["n"]) for row in rows] == [
        ("'-2+3", f"'{cause}", "8"),
        ("'-2+3", "", "16"),
    ]
