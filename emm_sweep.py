"""The way into `emm` under a name that nobody else has.

A `sweep` of the user's may come before ours on the import path.
"""

import os
import sys


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, here)  # for a moment: `ours_first` gives it its place
    from trainables.import_path import ours_first

    sys.path.remove(here)
    ours_first()
    from sweep.cli.main import main as emm

    emm()


if __name__ == "__main__":
    main()
