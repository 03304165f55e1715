"""The errors that are not bugs: the user's mistake, a file that is damaged, a trial that can't be
finished."""


class UserError(ValueError):
    """Something the user can change; its text is one line that says what. The command line exits
    with 2."""


class DamagedFile(UserError):
    """A file of a sweep that says nothing: broken, or not written by this program. Its text names
    the file."""


class TrialFailed(RuntimeError):
    """A trial ended for a cause (non-finite loss, out of memory): recorded as failed, never an
    observation."""
