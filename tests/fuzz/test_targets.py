"""The fuzzers' targets on their seeds, and each fuzzer for a moment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds, write_seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_holds_what_must_hold_for_any_bytes(target: str) -> None:
    found = seeds()[target]
    assert found
    for data in found:
        TARGETS[target](data)  # asserts what must hold
        TARGETS[target](data[: len(data) // 2])


def test_seeds_are_one_raw_input_a_file(tmp_path: Path) -> None:
    write_seeds(tmp_path / "mqttsn", "mqttsn")
    assert {file.read_bytes() for file in (tmp_path / "mqttsn").iterdir()} == set(seeds()["mqttsn"])


@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_runs_on_a_corpus_and_tries_one_file_again(target: str, tmp_path: Path) -> None:
    fuzzer = str(Path(__file__).with_name(f"fuzz_{target}.py"))
    corpus, one = tmp_path / "corpus", tmp_path / "one"
    corpus.mkdir()
    for number, seed in enumerate(seeds()[target]):
        (corpus / str(number)).write_bytes(seed)
    one.write_bytes(seeds()[target][0])
    told = []
    for arguments in (["-runs=500", str(corpus)], [str(one)]):
        command = [sys.executable, fuzzer, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(done.stderr)
    assert "Done 500 runs" in told[0], told[0][-2000:]
    assert re.search(r"cov: [1-9]", told[0]), told[0][-2000:]
    assert f"Executed {one}" in told[1], told[1][-2000:]
