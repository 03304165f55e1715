"""Ours are run, and the user's are found, whatever the user's modules are called; the local Ray is
nobody else's."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NETWORK = ["network.kind=custom", "network.builder=my_network:conv_net", "network.options.width=8"]
EMM = "from emm_sweep import main; main()"
# what a driver does, and what it sees; a SIGTERM ends it
RAY = """
import json, os, signal, sys
import psutil, ray
from pathlib import Path
from sweep.run import machines
machines.start_ray(machines.Resources())

@ray.remote
def work():
    import statistics, sweep, trainables.trial.ray_trainable
    from trainables.config.code import load_code
    builder = load_code("my_network:conv_net", "network.builder")
    return [module.__file__ for module in (statistics, sweep, trainables.trial.ray_trainable, sys.modules[builder.__module__])]

files = ray.get(work.remote())
tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
listening = [c.laddr.ip for one in tree for c in one.net_connections("inet") if c.status == "LISTEN"]
servers = {one.name(): one.environ() for one in tree if one.name() in ("gcs_server", "raylet")}
access = {name: (has["RAY_AUTH_MODE"], has["RAY_AUTH_TOKEN"]) for name, has in servers.items()}
shown = {"files": files, "listening": listening, "access": access}
print(json.dumps({**shown, "session": str(machines._session), "mode": machines._session.stat().st_mode & 0o777}), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture
def hostile(tmp_path):
    """A directory whose modules have names of ours, of the standard library and of a library, and
    one good one."""
    for name in ("sweep", "trainables", "search_spaces", "statistics", "torch"):
        (tmp_path / f"{name}.py").write_text(
            f"print('the {name} of the user'); raise SystemExit(0)"
        )
    (tmp_path / "my_network.py").write_text(
        (ROOT / "docs" / "examples" / "my_network.py").read_text()
    )
    return tmp_path


def python(*arguments, directory, path=(), **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment}
    for name in ("EMM_PATH", "PYTHONSAFEPATH"):
        environment.pop(name, None)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_the_command_is_ours_and_finds_the_users_network(hostile):
    """Their names in the working directory, which `python -c` puts first, and in PYTHONPATH."""
    settings = [word for setting in NETWORK for word in ("--set", setting)]
    done = python(
        "-c",
        EMM,
        "plan",
        "digits",
        "--json",
        *settings,
        directory=hostile,
        path=["", ROOT, hostile],
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["configurations"][0]["parameters"] > 0


def test_python_m_sweep_is_ours_where_the_working_directory_has_our_other_names(hostile):
    (hostile / "sweep.py").unlink()  # that name Python itself looks up there
    done = python("-W", "error", "-m", "sweep", "spaces", directory=hostile, path=[ROOT])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("digits-width")


def order(directory, path, ours):
    """sys.path, PYTHONPATH and EMM_PATH after `ours_first` of the copy of ours that is in
    `ours`."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(ours)!r}); from trainables.import_path import ours_first; ours_first(); "
        "print('\\n'.join(sys.path), os.environ['PYTHONPATH'], os.environ['EMM_PATH'], sep='\\n--\\n')"
    )
    return python("-c", code, directory=directory, path=path)


def house(directory):
    for name in ("trainables", "search_spaces", "sweep"):
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text("")
    text = (ROOT / "trainables" / "import_path.py").read_text()
    (directory / "trainables" / "import_path.py").write_text(text)
    return directory


def test_the_users_directories_come_last_and_libraries_keep_their_place(tmp_path):
    ours, theirs, library = house(tmp_path / "ours"), tmp_path / "theirs", tmp_path / "library"
    theirs.mkdir()
    (library / "numpy-2.0.dist-info").mkdir(parents=True)
    done = order(tmp_path, [theirs, library], ours)
    path, exported, handed_on = (part.split() for part in done.stdout.split("--\n"))
    standard = path.index(str(Path(os.__file__).parent))
    assert path[0] == str(ours)
    assert path.index(str(library)) < standard < path.index(str(theirs)) == len(path) - 2
    assert path[-1] == str(tmp_path), "the working directory"
    assert exported == [f"{ours}:{library}"]
    assert handed_on == [f"{theirs}:{tmp_path}"]


def test_another_sweep_among_the_libraries_is_named(tmp_path):
    ours, other = house(tmp_path / "ours" / "site-packages"), tmp_path / "other" / "site-packages"
    (other / "sweep").mkdir(parents=True)
    (other / "sweep" / "__init__.py").write_text("")
    assert order(tmp_path, [ours], ours).returncode == 0
    done = order(tmp_path, [other, ours], tmp_path / "nowhere")  # found where the environment says
    assert done.returncode == 2
    assert (
        done.stderr
        == f"emm: error: {other}/sweep stands in the way of this package's; rename or remove it\n"
    )


@pytest.mark.timeout(150)
def test_the_local_ray_runs_ours_on_loopback_behind_a_token_and_leaves_nothing(hostile):
    """Whatever the user exported; a SIGTERM ends it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from trainables.import_path import ours_first; ours_first()\n{RAY}"
    exported = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN": "known",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = python("-c", code, directory=hostile, path=[hostile], **exported)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    seen = json.loads(done.stdout)
    statistics, sweep, trainable, network = map(Path, seen["files"])
    assert statistics.parent == Path(os.__file__).parent
    assert sweep == ROOT / "sweep" / "__init__.py"
    assert trainable == ROOT / "trainables" / "trial" / "ray_trainable.py"
    assert network == hostile / "my_network.py"
    assert len(seen["listening"]) > 5
    assert {ip.removeprefix("::ffff:") for ip in seen["listening"]} <= {"127.0.0.1", "::1"}
    assert seen["access"].keys() == {"gcs_server", "raylet"}
    ((mode, token),) = set(map(tuple, seen["access"].values()))
    assert (mode, len(token)) == ("token", 64)
    assert seen["mode"] == 0o700
    assert Path(seen["session"]).parent == Path(tempfile.gettempdir())
    assert not Path(seen["session"]).exists()


def test_a_terminal_that_is_not_utf_8_shows_escapes(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "base: digits\nvary: {}\nsearch: {n_low: 8, n_high: 64}\nquestion: does σ matter?\n",
        encoding="utf-8",
    )
    done = python(
        "-W",
        "error",
        "-m",
        "sweep",
        "spaces",
        "mine.yaml",
        directory=tmp_path,
        path=[ROOT],
        PYTHONIOENCODING="ascii",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "does \\u03c3 matter?" in done.stdout
