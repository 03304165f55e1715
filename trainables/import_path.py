"""Where modules are imported from: ours and the libraries' first, a user's own last.

A user may have a `sweep.py`, `trainables.py` or `statistics.py`. It is never run in place of ours,
of a library's or of the standard library's, while every other module of theirs can be imported: on
the driver, in a job, in Ray's workers.

This runs before anything else is imported, so it needs only what Python has imported already.
"""

import os
import sys

OURS = ("trainables", "search_spaces", "sweep")
THEIRS = "EMM_PATH"  # environment: the user's directories, for processes that start from here
CODE = "emm_code"  # the directory of a job's package that holds the user's modules


def ours_first() -> None:
    """Orders `sys.path`, and the environment of what starts from here. May be called again.

    The user's directories are the working directory and those of PYTHONPATH that are not a
    library's. SystemExit(2), with one line, if another package still stands in the way of ours.
    """
    exported = _directories("PYTHONPATH")
    roots = _roots(exported)
    candidates = [
        *(path for path in exported if not _is_library(path)),
        *_directories(THEIRS),
        *_working_directory(),
    ]
    theirs = [path for path in dict.fromkeys(candidates) if path not in roots]
    # site-packages stays behind the standard library, as ever
    front = [path for path in roots if not _is_library(path)]
    rest = [
        path
        for path in map(os.path.abspath, filter(None, sys.path))
        if path not in theirs and path not in front
    ]
    sys.path[:] = [*front, *dict.fromkeys(rest), *theirs]
    os.environ[THEIRS] = os.pathsep.join(theirs)
    inherited = [*front, *(path for path in exported if path not in theirs and path not in front)]
    os.environ["PYTHONPATH"] = os.pathsep.join(inherited)
    os.environ["PYTHONSAFEPATH"] = "1"  # what starts from here ignores its working directory
    for name in OURS:
        found = _holder(name, sys.path)
        if found not in roots:
            print(
                f"emm: error: {found}/{name} stands in the way of this package's; rename or remove it",
                file=sys.stderr,
            )
            raise SystemExit(2)


def add_theirs() -> None:
    """Makes the user's modules importable in a process of Ray's, by the end of `sys.path`."""
    sent = [
        os.path.join(path, CODE) for path in sys.path if os.path.isdir(os.path.join(path, CODE))
    ]
    for path in [*sent, *_directories(THEIRS)]:
        if path not in sys.path:
            sys.path.append(path)


def _roots(exported: list[str]) -> list[str]:
    """The directories that hold our packages: one, or one for each where Ray unpacked them."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    elsewhere = [name for name in OURS if not os.path.isdir(os.path.join(root, name))]
    return list(
        dict.fromkeys(
            [root, *(holder for name in elsewhere if (holder := _holder(name, exported)))]
        )
    )


def _holder(name: str, path: list[str]) -> str | None:
    """The directory of `path` from which a package or module of that name would be imported."""
    for directory in path:
        if os.path.isfile(os.path.join(directory, name, "__init__.py")) or os.path.isfile(
            os.path.join(directory, f"{name}.py")
        ):
            return directory
    return None


def _is_library(directory: str) -> bool:
    """Whether packages are installed there (by pip, with --target too)."""
    if os.path.basename(directory) in ("site-packages", "dist-packages"):
        return True
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(directory))
    except OSError:
        return False


def _directories(variable: str) -> list[str]:
    return [
        os.path.abspath(path) for path in os.environ.get(variable, "").split(os.pathsep) if path
    ]


def _working_directory() -> list[str]:
    try:
        return [os.getcwd()]
    except OSError:  # it was removed
        return []
