"""`python -m sweep` is `emm`: for jobs, whose nodes have this code but not its command."""

import os
import sys

# before a `trainables` of the user's
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from trainables.import_path import ours_first

ours_first()
from sweep.cli.main import main  # noqa: E402

main()
