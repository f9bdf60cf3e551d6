"""Fuzzes the rules' parser and their code: `python tests/fuzz/fuzz_rules.py -max_total_time=10 [CORPUS]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.harness import fuzz

if __name__ == "__main__":
    fuzz("rules")
