"""Runs on a recorded disk, and the judgement of every image that a power cut could leave of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tests.faults.block import Image, RecordedDisk, Write, images, mounted
from tests.faults.log_runs import LogRun, live
from tests.faults.oracle import Verdict


class Recorded(msgspec.Struct):
    """begun: where in the journal the program under test began."""

    base: bytes
    journal: list[Write | None]
    begun: int
    run: LogRun

    @property
    def acknowledged_at(self) -> list[int]:
        return [position for position, _ in self.run.acknowledged]

    def verdicts(self, folder: Path, cuts: Sequence[int], *, parts: int) -> Iterator[tuple[Image, Verdict]]:
        """Open every image by the real code. Raises AssertionError naming the cut for what is not the oracle's."""
        for image in images(self.base, self.journal, list(cuts), seed=len(cuts), parts=parts):
            with mounted(image.content, folder) as mount:
                try:
                    verdict = self.run.judge(mount / "log", image.cut)
                except AssertionError as error:
                    raise AssertionError(f"cut after {image.cut}, {image.choice}: {error}") from error
            yield image, verdict

    def judge_all(self, folder: Path, cuts: Sequence[int], *, parts: int) -> int:
        """Returns how many images there were; raises AssertionError naming the cut where a promise was not kept."""
        count = 0
        for image, verdict in self.verdicts(folder, cuts, parts=parts):
            try:
                verdict.check(held=True)
            except AssertionError as error:
                raise AssertionError(f"cut after {image.cut}, {image.choice}: {error}") from error
            count += 1
        return count


def record_log(folder: Path, *, commits: int) -> Recorded:
    with RecordedDisk(folder / "recorded") as disk:
        run = LogRun(disk.mount / "log", lambda: len(disk.journal))
        live(run, commits)
        run.close()
        return Recorded(disk.base, list(disk.journal), run.begun, run)


def cut_points(recorded: Recorded, *, most: int | None = None) -> list[int]:
    """All points at which the power may be cut, or `most` of them, evenly spread."""
    every = list(range(recorded.begun, len(recorded.journal) + 1))
    if most is None or len(every) <= most:
        return every
    return [every[place * (len(every) - 1) // (most - 1)] for place in range(most)]
