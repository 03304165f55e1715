"""What a stranger reads on the page of a report: question, answer, what was trained; each thing
once, and nothing empty."""

import re
from pathlib import Path
from typing import Any

import pytest

from search_spaces.find import find_space
from search_spaces.space import SearchSpace
from sweep.analysis.summary import SweepSummary, summary_of
from sweep.report.answer import answer, question
from sweep.report.page import report_page
from sweep.report.trained import trained
from tests.results import caution_lines
from tests.summaries import (
    SPACE,
    VERDICTS,
    Page,
    curve,
    failure,
    found,
    printed,
    study,
    sweep_of,
    trial,
)
from trainables.text import amount
from trainables.trial.result import Result

SIZES = (8, 16, 24, 28, 32, 36, 40, 60, 80)
PICTURES = {"emm": b"png"}


def two(first: float, second: float) -> SweepSummary:
    """Found, of these EMMs, at widths of 8 and 16."""
    summary = summary_of(
        SPACE, [*curve("width=8", first, SIZES), *curve("width=16", second, SIZES)], []
    )
    assert [one.verdict.state for one in summary.studies] == ["found", "found"]
    return summary


# ---------------------------------------------------------------- the question and the answer


@pytest.mark.parametrize(("emms", "moves"), [((24, 48), "grows"), ((48, 24), "falls")])
def test_the_answer_says_which_way_and_how_much(emms: tuple[int, int], moves: str) -> None:
    summary = two(*emms)
    (ratio,) = summary.contrasts
    ends = [
        f"{amount(v.emm)} [{amount(v.emm_low)} to {amount(v.emm_high)}] at {study.name}"
        for study in summary.studies
        if (v := study.verdict).emm and v.emm_low and v.emm_high
    ]
    assert answer(summary) == (
        f"The EMM {moves} with the width, from {ends[0]} to {ends[1]}, a ratio of "
        f"{ratio.ratio:.3g} [{amount(ratio.low)} to {amount(ratio.high)}]."
    )


def test_the_answer_claims_no_more_than_is_known() -> None:
    same = answer(two(30, 30))
    assert "is not seen to change with the width" in same
    assert same.endswith(", not told apart.")
    assert answer(summary_of(SPACE, [], [])) == "Nothing is known yet: no trial has finished."
    half = answer(summary_of(SPACE, [*curve("width=8", 30, SIZES), trial("width=16", 9, 0)], []))
    assert half.startswith("So far, the EMM of width=8 is ")
    assert "with more training images, less than 90 % of what is generated are copies" in half
    assert half.endswith("Not known (not finished: width=16).")
    names = {"a": "below_range", "b": "above_range", "c": "unresolved"}
    none = sweep_of(*(study(n, VERDICTS[state], [trial(n, 9, 0)]) for n, state in names.items()))
    assert answer(none) == (
        "No EMM is known (below the range of N: a; above the range of N: b; not resolved: c)."
    )


@pytest.mark.parametrize(
    ("emms", "moves"), [((20, 30, 60), "grows"), ((20, 60, 20), "both grows and falls")]
)
def test_the_answer_sees_what_lies_between_the_ends(emms: tuple[int, ...], moves: str) -> None:
    widths = (4, 8, 16)
    studies = [
        study(
            str(width), found(emm, emm / 1.2, emm * 1.2), curve("c", emm, SIZES), {"width": width}
        )
        for width, emm in zip(widths, emms, strict=True)
    ]
    assert answer(sweep_of(*studies)).startswith(f"The EMM {moves} with the width, from 20.0 [")


def test_the_answer_counts_as_the_tables_do() -> None:
    """Some of these exclude 1 by their own interval only."""
    emms = (20, 21.5, 22, 22.5, 23, 24)
    studies = [
        study(str(n), found(emm, emm / 1.2, emm * 1.2), curve("c", emm, SIZES), {"kind": str(n)})
        for n, emm in enumerate(emms)
    ]
    summary = sweep_of(*studies)
    told = [one.told for one in summary.compared.shown]
    assert "alone" in told
    assert answer(summary).endswith(f"factor: {told.count('yes')} of 5 by the kind.")


def test_the_answer_on_groups_names_the_ends_alone() -> None:
    """Of many the extremes lie apart by chance: their ratio is no result."""
    emms = {"x": 40.0, "y": 20.0, "z": 60.0}
    results = {name: curve(name, emm, SIZES) for name, emm in emms.items()}
    summary = sweep_of(
        *(study(name, found(emm, emm - 1, emm + 1), results[name]) for name, emm in emms.items())
    )
    assert answer(summary).startswith(
        "The EMM is between 20.0 [19.0 to 21.0] at y and 60.0 [59.0 to 61.0] at z. Told apart "
    )
    assert "ratio" not in answer(summary)
    assert answer(summary).endswith(
        "from the first level of their factor: 2 of 2 (1 upwards, 1 downwards) by the name."
    )


def test_the_answer_says_by_which_factor() -> None:
    """Of a grid the width matters, and the batch does not."""
    grid = [(width, batch) for width in (8, 16) for batch in (32, 64)]
    studies = [
        study(f"{width},{batch}", found(4.0 * width, 30, 70), curve("c", 4.0 * width, SIZES),
              {"width": width, "batch_size": batch})
        for width, batch in grid
    ]  # fmt: skip
    said = answer(sweep_of(*studies))
    assert said.endswith(
        "from the first level of their factor: 2 of 2 by the width, 0 of 2 by the batch size."
    )


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, SPACE.question),
        ({"question": ""}, "How does the EMM depend on width?"),
        (
            {"question": "", "vary": {"network.width": (8,), "trainer.batch": (32, 64)}},
            "How does the EMM depend on width and batch?",
        ),
        ({"question": "", "vary": {}}, "What is the EMM of digits-width?"),
    ],
)
def test_the_title_is_the_users_question(changes: dict[str, Any], asked: str) -> None:
    summary = summary_of(SPACE.model_copy(update=changes), [], [])
    assert question(summary) == asked
    page = report_page(summary, {}, "none")
    assert f"<title>{asked}</title>" in page
    assert f"<h1>{asked}</h1>" in page


# ---------------------------------------------------------------- what was trained


PRIVATE = {
    "base": "digits",
    "settings": {
        "data": {"kind": "folder", "path": "/home/me/faces", "resolution": 8, "channels": 1},
        "trainer.length": 800,
        "network": {
            "kind": "custom",
            "builder": "mine:net",
            "options": {"start": "/home/me/weights.pt", "size": 3},
        },
    },
    "vary": {"trainer.batch": [32, 64]},
    "search": {"n_low": 8, "n_high": 64},
}


def test_what_varies_and_what_differs_come_first() -> None:
    told = trained(summary_of(find_space(PRIVATE), [], []))
    assert told.recipe == "digits"
    assert told.varied == [("trainer.batch", "32, 64", "images per step")]
    differing = {path: (value, recipe) for path, value, recipe, _ in told.differing}
    assert differing["trainer.length"] == ("800", "400")
    assert differing["data.kind"] == ("folder", "digits")
    assert differing["network.options"] == ('{"start":"...","size":3}', "-")
    assert "trainer.lr" in {path for path, *_ in told.others}
    assert not differing.keys() & {path for path, *_ in told.others}
    assert told.gist["training"] == "length 800 steps, batch 32, 64, adam, lr 0.02, fp32"
    assert told.gist["network"] == "custom, mine:net", "only torch can count it"


def test_parameters_are_those_of_a_plan() -> None:
    from sweep.run.plan import size_of

    space = SPACE
    sizes = [size_of(named.configuration, 8).parameters for named in space.configurations]
    told = trained(summary_of(space, [], []))
    low, high = (f"{count / 1e3:.3g} k" for count in (min(sizes), max(sizes)))
    assert told.gist["network"] == f"ddpmpp, {low} to {high} parameters"


@pytest.mark.parametrize("path", ["/home/me/faces", "faces"])
def test_no_place_of_the_users_is_on_the_page(path: str) -> None:
    settings = PRIVATE["settings"]
    assert isinstance(settings, dict)
    data = {**settings["data"], "path": path}
    space = find_space({**PRIVATE, "settings": {**settings, "data": data}})
    page = report_page(summary_of(space, [], []), {}, "none")
    assert "/home/me" not in page
    assert "faces" not in page
    assert "trainer.batch" in page


# ---------------------------------------------------------------- each thing once


def rising(count: int) -> SweepSummary:
    """Configurations with the same trap, and one more with another."""
    names = [f"c{i}" for i in range(count)]

    def late(name: str, half: float) -> list[Result]:
        return [trial(name, n, n, r_mem_half=half, r_mem_last=0.9) for n in (30, 40)]

    studies = [study(name, VERDICTS["found"], late(name, i / 100)) for i, name in enumerate(names)]
    last = study("last", VERDICTS["found"], [trial("last", 35, 0), failure("last", 9, 1)])
    return sweep_of(*studies, last)


def test_a_warning_is_said_once_with_all_it_applies_to() -> None:
    summary = rising(8)
    page, text = Page(report_page(summary, PICTURES, "none")), printed(summary, 100)
    for said in (page.text, text):
        assert said.count("R_mem rises late") == 1
    assert "8 of 9 configurations" in page.text
    for i in range(8):
        numbers = f"c{i} (0.0{i} at half of the training, 0.90 at its end, mean of 2 trials)"
        assert numbers in page.text
        assert numbers in "\n".join(caution_lines(summary))
    assert "c0, c1, c2, c3, c4, c5 and 2 more" in " ".join(text.split())
    assert "last: 1 trial failed: non-finite loss" in page.text
    few = " ".join(printed(rising(2), 100).split())
    assert (
        "the training: c0 (0.00 at half of the training, 0.90 at its end, mean of 2 trials); c1 ("
        in few
    )


def test_a_warning_of_all_says_all() -> None:
    late = [
        study(
            f"c{i}",
            VERDICTS["found"],
            [trial(f"c{i}", n, n, r_mem_half=0.1, r_mem_last=0.9) for n in (30, 40)],
        )
        for i in range(7)
    ]
    text = " ".join(printed(sweep_of(*late), 100).split())
    assert "of the training: all 7 configurations" in text


def test_many_trials_are_not_printed_and_it_is_said_where_they_are(tmp_path: Path) -> None:
    from rich.console import Console

    from sweep.report.table import print_table

    trials = [trial("a", 30 + i % 5, i) for i in range(40)]
    assert printed(sweep_of(study("a", VERDICTS["found"], trials))).count("complete") == 40
    console = Console(width=200)
    with console.capture() as captured:
        more = study("a", VERDICTS["found"], [*trials, trial("a", 30, 40)])
        print_table(sweep_of(more), console, tmp_path)
    text = captured.get()
    assert "complete" not in text
    assert f"41 trials: in {tmp_path / 'trials.csv'}, and on the page of the report" in text


def test_the_answer_stands_at_the_end_of_the_table() -> None:
    summary = two(24, 48)
    last = printed(summary, 300).rstrip().splitlines()[-1]
    assert last.strip() == answer(summary)


# ---------------------------------------------------------------- the page as a whole


SUMMARIES = {
    "nothing yet": summary_of(SPACE, [], []),
    "two": two(24, 48),
    "many": rising(8),
    "bare": summary_of(find_space(PRIVATE), [], []),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_contents_are_the_sections_in_their_order(name: str) -> None:
    text = report_page(SUMMARIES[name], PICTURES, "none")
    links = re.findall(r'<a href="#([\w-]+)">([^<]+)</a>', text)
    assert links == re.findall(r'<h2 id="([\w-]+)">([^<]+)</h2>', text)
    ids = re.findall(r'\bid="([\w-]+)"', text)
    assert len(ids) == len(set(ids))
    assert links[0][0] == "results"
    assert links[-1][0] in ("provenance-of-all", "reading")


@pytest.mark.parametrize("name", SUMMARIES)
def test_nothing_on_the_page_is_empty(name: str) -> None:
    text = report_page(SUMMARIES[name], PICTURES, "none")
    page = Page(text)
    for tag in ("dd", "dt", "p", "li", "ul", "summary", "h2", "figcaption"):
        assert not re.search(rf"<{tag}[^>]*>\s*</{tag}>", text), tag
    for table, (head, *rows) in page.tables.items():
        assert rows, f"{table} has no rows"
        if table in ("scale", "seeds", "isolation", "profile", "runs", "provenance"):
            for column, *cells in zip(head, *rows, strict=True):
                assert set(cells) - {"", "-"}, f"{table}: {column} is empty"
    sections = re.split(r"<h2 ", text)[1:]
    assert all(len(re.sub(r"<[^>]*>", "", section)) > 60 for section in sections)


def test_words_at_the_heads_of_columns_are_in_the_glossary() -> None:
    text = report_page(SUMMARIES["two"], PICTURES, "none")
    explained = set(re.findall(r'<th[^>]* title="([^"]+)"', text))
    says = {one.removesuffix(".") for one in re.findall(r"<dt>[^<]+</dt><dd>([^<]+)</dd>", text)}
    assert len(explained) > 12
    assert explained <= says


def test_texts_of_the_users_do_nothing_in_question_answer_and_fields() -> None:
    evil = "<script>alert(1)</script>"
    space: SearchSpace = SPACE.model_copy(update={"question": evil, "expectation": evil})
    studies = [
        study(f"{evil}{i}", found(30 + i, 25, 40), curve(f"{evil}{i}", 30 + i, SIZES))
        for i in range(2)
    ]
    text = report_page(sweep_of(*studies, space=space), PICTURES, "none")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 5


def test_long_parts_are_folded() -> None:
    def is_open(text: str, words: str) -> bool:
        (found,) = re.findall(rf"<details( open)?>\s*<summary>{re.escape(words)}</summary>", text)
        return bool(found)

    trials = [trial("a", 30 + i % 5, i) for i in range(41)]
    text = report_page(sweep_of(study("a", VERDICTS["found"], trials)), {}, "none")
    assert not is_open(text, "41 trials")
    assert is_open(
        report_page(sweep_of(study("a", VERDICTS["found"], trials[:9])), {}, "none"), "9 trials"
    )
    assert not is_open(text, "Where, when and by what code each trial was made")
    images = {f"study-{i:02d}-c{i - 1}": b"png" for i in range(1, 9)}
    assert not is_open(report_page(rising(8), images, "none"), "c3")
    assert is_open(report_page(rising(2), images, "none"), "c1")
