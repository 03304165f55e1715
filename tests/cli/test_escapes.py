"""Texts of the user's on their way out: to a terminal, a page in Markdown, a spreadsheet,
MLflow."""

import ast
import io
from pathlib import Path

import pytest

from sweep.cli.main import main
from sweep.cli.printing import console, say
from sweep.report.files import cell
from sweep.tracking.escapes import MARKUP, markdown, mlflow_key
from trainables.text import cut, visible

ROOT = Path(__file__).parents[2]
PACKAGES = ("search_spaces", "sweep")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m red\r over \u202etxt.exe \udc80 \x00"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m red\r over \u202etxt.exe \udc80 \x00"


def test_a_terminal_obeys_nothing_and_loses_nothing(capsys):
    assert visible(HOSTILE) == SHOWN
    assert visible("σ, 木, é, 👩‍🔬\n\ta") == "σ, 木, é, 👩‍🔬\n\ta"
    say(HOSTILE)
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_a_console_obeys_only_itself(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    screen = console()
    screen.print(f"\x1b[31m[red]{HOSTILE[:5]}", markup=False)
    assert screen.file.getvalue() == r"\x1b[31m[red]\x1b]0;o" + "\n"


def test_only_the_command_line_prints_and_by_say_alone():
    """What stands below it is given a function to tell by, or logs; so no text is forgotten."""

    def printing(path: Path) -> bool:
        calls = [
            node.func
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        return any(getattr(function, "id", None) == "print" for function in calls)

    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [path for path in paths if printing(path)] == [ROOT / "sweep/cli/printing.py"]
    users = [path for path in paths if "sweep.cli.printing" in path.read_text()]
    assert users
    assert {path.parent for path in users} == {ROOT / "sweep/cli"}


@pytest.mark.parametrize("error", ["a\x1b[2Jb", "a\x1b[2J\nb"])
def test_an_error_is_one_line_that_a_terminal_does_not_obey(capsys, error):
    with pytest.raises(SystemExit):
        main(["status", f"/nowhere/{error}"])
    printed = capsys.readouterr().err
    assert printed.startswith(r"emm: error: /nowhere/a\x1b[2J")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://evil.example/p.png)",
        '<img src="http://evil.example/p.png">',
        "[a](http://evil.example)",
        "<http://evil.example>",
        "http://evil.example www.evil.example WWW.evil.example",
        "a\n\n![x][1]\n\n[1]: http://evil.example/p.png",
        "**bold** `code` ~~no~~ @somebody #1 | a |",
        "&lt;img src=x&gt; \\![x](y)",
    ],
)
def test_a_page_in_markdown_fetches_nothing_and_links_to_nothing(text):
    import html
    import re

    escaped = markdown(text)
    assert "\n" not in escaped
    assert not MARKUP.search(re.sub(r"&#\d+;", "", escaped))
    assert html.unescape(escaped) == " ".join(text.split()), "and shows every letter"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_nothing(text):
    assert cell(text) == f"'{text}"
    assert cell("width=8") == "width=8"


NAMES = [
    "width", "network.width", "lr/batch", "a b", "größe", "50%", "#1", "a:b", "🙂", "a\nb", "", ".", "..", "../x", "/x",
    "a//b", "a/", "./a", "a`b", "a'b", "a\x00b", "a\udc80b", "x" * 250, "x" * 251, "x" * 300, "--", "/" * 300, "a/../b",
    "λ" * 251,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_mlflow_takes_every_key(name):
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_param

    key = mlflow_key(name)
    assert _validate_param(key, "1").key == key
    try:
        taken = _validate_param(name, "1").key == name
    except MlflowException:
        taken = False
    assert (key == name) is taken, "and a key that it takes is left alone"


def test_keys_and_cut_texts_stay_apart():
    assert len({mlflow_key(name) for name in NAMES}) == len(NAMES)
    a, b = cut("x" * 300 + "a", 250), cut("x" * 300 + "b", 250)
    assert a != b
    assert len(a) == len(b) == 250
    assert cut("x" * 250, 250) == "x" * 250
