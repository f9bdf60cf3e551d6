"""Runs one target under atheris. Takes libFuzzer's arguments: options, corpus folders, or files to try again."""

import os
import sys
import tempfile
from pathlib import Path


def fuzz(target: str) -> None:
    """Never returns. The seeds stand in a folder of their own for the time of the run, after the corpus given."""
    paths = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if any(path.is_file() for path in paths):
        _instrument(target)
        _run(target, sys.argv)
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"edgeloop-fuzz-{target}-") as folder:
        child = os.fork()
        if child == 0:
            _instrument(target)
            _run(target, [*sys.argv, *_folders(target, Path(folder), given=bool(paths))])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(code if code >= 0 else 128 - code)


def _folders(target: str, folder: Path, *, given: bool) -> list[str]:
    """libFuzzer writes what it finds into the first folder: never the seeds'."""
    from tests.fuzz.seeds import write_seeds

    found, seeds = folder / "found", folder / "seeds"
    found.mkdir()
    write_seeds(seeds, target)
    return [str(seeds)] if given else [str(found), str(seeds)]


def _instrument(target: str) -> None:
    """Before anything else imports what is under test, the seeds among them."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["edge"]):
        if target == "rules":  # with a parser beside it that takes long to load
            import edge.rules.rule
            import edge.rules.sql.parse
        import edge.boards.frames
        import edge.boards.link
        import edge.boards.mqttsn
        import edge.functions.ndjson
        import edge.mqtt.session  # noqa: F401


def _run(target: str, arguments: list[str]) -> None:
    """Does not return."""
    import atheris

    from tests.fuzz.targets import TARGETS

    atheris.Setup(arguments, TARGETS[target])
    atheris.Fuzz()
