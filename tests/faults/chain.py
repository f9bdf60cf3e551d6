"""The whole chain under random faults: boards, gateway, network, broker, all at once, for as long as one likes."""

import random
import time
from collections.abc import Callable

import msgspec

from tests.faults.fleet_cloud import FleetCloud
from tests.faults.worlds import World

SETTLE_S = 20.0


class Struck(msgspec.Struct):
    """How often each fault struck."""

    counts: dict[str, int] = {}

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.counts.items() if name in KILLS)


KILLS = ("gateway", "broker", "board", "ingester", "power")


def shake(
    world: World,
    rng: random.Random,
    *,
    go_on: Callable[[Struck], bool],
    pause_s: tuple[float, float] = (0.1, 0.8),
    power: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Struck:
    """Strike at random while go_on says so. The network may stay away over several kills of the gateway: the outages
    are where backlog grows; every fault but an outage ends before the next begins. power: of a board is cut too, which
    costs what it holds."""
    struck = Struck()
    hurts: dict[str, tuple[int, Callable[[], None]]] = {
        "gateway": (5, lambda: kill_gateway(world)),
        "broker": (3, lambda: restart_broker(world, rng)),
        "board": (3, lambda: restart_board(world, rng)),
        "unplugged": (1, lambda: replug(world, rng)),
        "cut": (2, world.proxy.cut),
        "restored": (2, world.proxy.restore),
        "reset": (1, world.proxy.reset),
        "reset_within_packet": (1, lambda: setattr(world.proxy, "reset_after_bytes", rng.randrange(2000, 60_000))),
        "delayed": (1, lambda: setattr(world.proxy, "latency_s", rng.uniform(0.0, 0.2))),
    }
    if isinstance(world.cloud, FleetCloud):
        hurts["ingester"] = (3, world.cloud.kill_ingester)
    if power:
        hurts["power"] = (1, lambda: world.boards.cut_power(rng.choice(world.boards.names)))
    names, weights = list(hurts), [weight for weight, _ in hurts.values()]
    while go_on(struck):
        name = rng.choices(names, weights)[0]
        hurts[name][1]()
        struck.counts[name] = struck.counts.get(name, 0) + 1
        if struck.kills % 50 == 0 and name in KILLS:
            progress(f"  {struck.kills} kills, {world.boards.acknowledged():,} records acknowledged")
        time.sleep(rng.uniform(*pause_s))
    return struck


def kill_gateway(world: World) -> None:
    """kill -9 and a new start, which may itself be killed while it is at it."""
    world.gateway.kill()
    world.gateway.start()


def restart_broker(world: World, rng: random.Random) -> None:
    world.cloud.stop()
    time.sleep(rng.uniform(0.0, 0.3))
    world.cloud.start()


def restart_board(world: World, rng: random.Random) -> None:
    """By its reset line: its ring survives, its sequence begins anew under the next boot."""
    world.boards.reset(rng.choice(world.boards.names))


def replug(world: World, rng: random.Random) -> None:
    name = rng.choice(world.boards.names)
    world.boards.unplug(name)
    time.sleep(rng.uniform(0.0, 0.2))
    world.boards.plug(name)
