"""What can go wrong with boards and cables, told as: what was wrong, and what to do next."""


class HilError(Exception):
    """fix: what a person can do about it, ready to be printed. `exit_code` is what a command line ends with."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        self.problem, self.fix = problem, fix
        super().__init__(f"{problem}. {fix}")


class SetupError(HilError):
    """Something this machine or its configuration lacks: a program, an image, a folder."""

    exit_code = 78


class NotSupported(HilError):
    """The board's hardware cannot do that."""
