"""Kills, power cuts and error after error; every record produced is looked for by one oracle.

kill -9 at every system call that changes the data folder, of a first start, of a start with a backlog, of a run that
begins and frees segments, and of runs that fill their stream so that it drops or thins; then kills at random of
gateway, broker and boards under outages, eight boards producing all the time; then the same for an hour as far as the
database of `fleet ingest`, which is killed too: what the boards produced must be what `fleet telemetry query` shows;
then the power cut under a real ext4 at every write and flush its block device saw. What an image or a run breaks is
counted, told on stderr, and kept from ending the bench.
"""

import itertools
import random
import time
from typing import Any

import msgspec

from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.faults.block_runs import cut_points, record_log
from tests.faults.chain import shake
from tests.faults.fleet_cloud import FleetCloud
from tests.faults.kills import FULL, KILL, calls_of, spread, strike
from tests.faults.oracle import Verdict
from tests.faults.receivers import RealCloud
from tests.faults.worlds import World

DESCRIPTION = "1,000 kills, every cut of the power, eight boards through outages: lost, shown twice, overtaken"

BOARDS = 8
RATE_EACH_PER_S = 20
SEED = 4
CHAIN_S = (3600.0, 6.0)
# What is run at every system call: a first start, a start with a backlog, many segments, and each policy at work.
RUNS: tuple[dict[str, Any], ...] = (
    {},
    {"backlog": 100},
    {"records": 1600, "burst": 400, "payload_bytes": 900, "bytes_max": 2 * 1024 * 1024},
    *FULL.values(),
)


class Sum(msgspec.Struct):
    kills: int = 0
    write_calls: int = 0
    kills_at_calls: int = 0
    produced: int = 0
    lost: int = 0
    repeats_visible: int = 0
    out_of_order: int = 0

    def add(self, verdict: Verdict) -> None:
        self.produced += verdict.produced
        self.lost += len(verdict.lost)
        self.repeats_visible += len(verdict.repeats_visible)
        self.out_of_order += len(verdict.out_of_order)


def run(context: Context) -> list[Figure]:
    total = Sum()
    _kill_at_calls(context, total)
    _kill_at_random(context, total)
    chain = _shake_to_the_database(context, total)
    images, cuts = _cut_power(context, total)
    return [
        figure("kills", [total.kills], "kills", "higher", goal=None if context.quick else 1000),
        figure("write_calls", [total.write_calls], "calls", "higher"),
        figure("kills_at_calls", [total.kills_at_calls], "kills", "higher"),
        figure("chain_s", [context.pick(*CHAIN_S)], "s", "higher"),
        figure("chain_stored", [chain.received], "records", "higher", goal=chain.produced),
        figure("cut_points", [cuts], "cuts", "higher"),
        figure("crash_images", [images], "images", "higher"),
        figure("produced", [total.produced], "records", "higher"),
        figure("lost", [total.lost], "records", "lower", goal=0),
        figure("repeats_visible", [total.repeats_visible], "records", "lower", goal=0),
        figure("out_of_order", [total.out_of_order], "records", "lower", goal=0),
    ]


def _kill_at_calls(context: Context, total: Sum) -> None:
    """At every call, a quick bench at a few. A call that another run does not come to kills nobody: write_calls counts
    the calls there are, kills_at_calls the gateways that died."""
    for options in context.pick(RUNS, RUNS[:1]):
        calls = list(calls_of(context.folder("calls"), **options))
        total.write_calls += len(calls)
        chosen = spread(calls, 12) if context.quick else calls
        context.progress(f"  kill -9 at {len(chosen)} of {len(calls)} system calls, {options or 'a first start'}")
        for kill in chosen:
            struck = strike(context.folder("kill"), kill, KILL, **options)
            total.kills += bool(struck.where)
            total.kills_at_calls += bool(struck.where)
            _judged(context, total, struck.verdict, f"kill -9 at {kill}")


def _kill_at_random(context: Context, total: Sum) -> None:
    """As many as are wanted, in worlds that each live through some."""
    wanted, each = context.pick((1000, 100), (12, 12))
    context.progress(f"  {wanted} kills at random, {BOARDS} boards")
    done = 0
    for number in itertools.count():
        if done >= wanted:
            return
        folder = context.folder("world")
        rng = random.Random(SEED * 1000 + number)
        with World(folder, boards=BOARDS, cloud=RealCloud(folder / "cloud"), ring=8192) as world:
            world.gateway.start()
            world.boards.run_at(RATE_EACH_PER_S)
            struck = shake(world, rng, go_on=lambda so_far: so_far.kills < each, power=True, progress=context.progress)
            verdict = world.drain(patience_s=120)
        done += struck.kills
        total.kills += struck.kills
        _judged(context, total, verdict, f"random kills, seed {SEED * 1000 + number}, {struck.counts}")
        context.progress(f"  {done} kills: {verdict.summary()}")


def _shake_to_the_database(context: Context, total: Sum) -> Verdict:
    """Outages and kills of everything all along, in one world that lives through them all."""
    folder = context.folder("chain")
    context.progress(f"  {context.pick(*CHAIN_S):.0f} s of outages and kills, {BOARDS} boards, to the database")
    with World(folder, boards=BOARDS, cloud=FleetCloud(folder / "cloud"), ring=8192) as world:
        world.gateway.start()
        world.boards.run_at(RATE_EACH_PER_S)
        until_s = time.monotonic() + context.pick(*CHAIN_S)
        struck = shake(
            world, random.Random(SEED), go_on=lambda _: time.monotonic() < until_s, progress=context.progress
        )
        verdict = world.drain(patience_s=120)
    total.kills += struck.kills
    _judged(context, total, verdict, f"the chain to the database, {struck.counts}")
    context.progress(f"  {struck.counts}: {verdict.summary()}")
    return verdict


def _cut_power(context: Context, total: Sum) -> tuple[int, int]:
    folder = context.folder("block")
    recorded = record_log(folder, commits=context.pick(200, 40))
    cuts = cut_points(recorded, most=60 if context.quick else None)
    context.progress(f"  the power cut under ext4 at {len(cuts)} points")
    images = 0
    for image, verdict in recorded.verdicts(folder, cuts, parts=context.pick(3, 1)):
        images += 1
        _judged(context, total, verdict, f"power cut after {image.cut}, {image.choice}")
    return images, len(cuts)


def _judged(context: Context, total: Sum, verdict: Verdict, what: str) -> None:
    total.add(verdict)
    if verdict.faults:
        context.progress(f"  {what}: {'; '.join(verdict.faults)}")
    if not verdict.drained or verdict.invented or verdict.misnamed or verdict.miscounted:
        raise NoFigure(f"{what}: {'; '.join(verdict.faults)}; {verdict.summary()}")
