"""What the laptop's commands have alike: how they exit, and what a number on their command line may be."""

import argparse
import os
import sys
from collections.abc import Callable

DONE, FAILED, USAGE, CONFIGURATION = 0, 1, 2, 78


def between(low: int, high: int) -> Callable[[str], int]:
    """For argparse: an integer within both bounds."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not within {low} to {high}")
        return value

    return number


def reader_left() -> int:
    """Who read our stdout is gone: what Python still flushes at its end goes nowhere. Returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
