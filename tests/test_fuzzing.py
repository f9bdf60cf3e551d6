import sys
from pathlib import Path

from edge_tools.fuzzing import Fuzzer, c_fuzzers, corpus, python_fuzzers, run

# Plays a fuzzer: says what it was given, and finds a crash when a seed says so.
PROGRAM = """
import pathlib, sys
folders = [pathlib.Path(word) for word in sys.argv[1:] if not word.startswith("-")]
print(*sys.argv[1:])
crash = any(file.read_bytes() == b"crash" for folder in folders for file in folder.iterdir())
sys.exit(77 if crash else 0)
"""


def test_a_fuzzer_gets_its_seconds_the_corpus_and_the_seeds_of_its_target(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds/frames"
    seeds.mkdir(parents=True)
    passed, output = run(Fuzzer("c-frames", "frames", (sys.executable, "-c", PROGRAM)), 3, tmp_path, tmp_path / "seeds")
    assert passed
    assert output.split()[0] == "-max_total_time=3"
    assert output.split()[-2:] == [str(tmp_path / ".cache/fuzz/corpus/frames"), str(seeds)]


def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds/frames"
    seeds.mkdir(parents=True)
    (seeds / "one").write_bytes(b"crash")
    fuzzer = Fuzzer("c-frames", "frames", (sys.executable, "-c", PROGRAM))
    assert not run(fuzzer, 3, tmp_path, tmp_path / "seeds")[0]


def test_only_programs_are_c_fuzzers_and_scripts_are_python_ones(tmp_path: Path) -> None:
    built, scripts = tmp_path / "firmware/build/fuzz/tests", tmp_path / "tests/fuzz"
    for folder in (built, scripts):
        folder.mkdir(parents=True)
    (built / "fuzz_wire").touch(mode=0o755)
    (built / "fuzz_wire.o").touch(mode=0o755)
    (built / "fuzz_notes").touch(mode=0o644)
    (scripts / "fuzz_link.py").touch()
    (scripts / "harness.py").touch()
    assert [(one.name, one.target) for one in c_fuzzers(tmp_path)] == [("c-fuzz_wire", "frames")]
    assert [(one.name, one.target) for one in python_fuzzers(tmp_path)] == [("python-fuzz_link", "link")]


def test_what_the_python_fuzzer_finds_is_tried_on_the_c_one_and_the_other_way_round(tmp_path: Path) -> None:
    built, scripts = tmp_path / "firmware/build/fuzz/tests", tmp_path / "tests/fuzz"
    built.mkdir(parents=True)
    scripts.mkdir(parents=True)
    (built / "fuzz_wire").touch(mode=0o755)
    (scripts / "fuzz_frames.py").touch()
    [ours], [theirs] = c_fuzzers(tmp_path), python_fuzzers(tmp_path)
    assert corpus(tmp_path, ours) == corpus(tmp_path, theirs)
