"""What people who use command lines expect of any: help everywhere, defaults in it, completion."""

import re

import pytest

from sweep.cli.main import app
from tests.cli.test_cli import ROOT, here

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def said(capsys, *arguments):
    code, output, errors = here(capsys, *arguments)
    assert (code, errors) == (0, "")
    return output


def test_the_version_is_that_of_the_project(capsys):
    (version,) = re.findall(
        '^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert said(capsys, "--version") == f"emm-sweep {version}\n"


def test_alone_it_shows_its_help(capsys):
    assert said(capsys) == said(capsys, "--help") == said(capsys, "-h")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_by_both_names(capsys, command):
    text = said(capsys, command, "-h")
    assert text == said(capsys, command, "--help")
    assert text.startswith(f"Usage: emm {command} ")
    assert "-h, --help" in text
    if re.search(r"^ +SPACE ", text, re.MULTILINE):
        words = " ".join(text.split())
        assert "a name that `emm spaces` lists, or the path of a YAML or Python file." in words


def test_what_a_command_does_is_said_to_the_end(capsys):
    commands = said(capsys).split("Commands:")[1]
    assert "..." not in commands
    assert set(re.findall(r"^  (\w+)", commands, re.MULTILINE)) == set(COMMANDS)
    words = " ".join(commands.split())
    assert (
        "run Finds the EMM of every configuration of a space: starts, resumes or extends the sweep in DIR"
        in words
    )
    assert max(map(len, commands.splitlines())) <= 80


def test_every_option_of_a_run_that_takes_a_value_says_its_default(capsys):
    options = said(capsys, "run", "--help").split("Options:\n")[1]
    texts = re.findall(r"^  (--[\w-]+) [<PN]\S*(.*?)(?=^  -|\Z)", options, re.MULTILINE | re.DOTALL)
    silent = {name for name, text in texts if "[default: " not in " ".join(text.split())}
    assert len(texts) >= 15
    assert silent == {"--out", "--storage", "--set"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("emm spa", {"spaces"}),
        ("emm run digits-wi", {"digits-width"}),
        ("emm run digits-width --set network.wid", {"network.width="}),
        ("emm run digits-width --only ", {"width=4", "width=8"}),
        ("emm trial digits-width --config width=8", {"width=8"}),
        ("emm trial no-such-space --config ", set()),
        ("emm fields search.n_", {"search.n_low", "search.n_high"}),
        ("emm run --dry", {"--dry-run"}),
    ],
)
def test_the_shell_completes(capsys, monkeypatch, line, wanted):
    monkeypatch.setenv("_EMM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    assert set(said(capsys).split()) == wanted


def test_the_script_for_the_shell_is_printed(capsys, monkeypatch):
    monkeypatch.setenv("_EMM_COMPLETE", "source_bash")
    assert "complete -o default -F" in said(capsys), "files are the shell's to complete"
