"""The one error that the commands print as a line instead of a stack trace."""


class ClusterError(Exception):
    """What went wrong and what to do about it, in words for the person at the terminal."""
