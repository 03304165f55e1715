"""`python -m sweep` is `emm`: for jobs, whose nodes have this code but not its command."""

from sweep.cli import main

main()
