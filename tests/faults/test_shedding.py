"""Where a bound is reached and the policy sheds, every record shed is in the shed book with its reason."""

from pathlib import Path

from tests.faults.worlds import World, wait_for

FULL_BYTES = 2 * 1024 * 1024


def test_dropping_the_oldest_accounts_for_every_record(tmp_path: Path) -> None:
    with World(tmp_path, boards=2, payload_bytes=1500, bytes_max=FULL_BYTES, when_full="drop_oldest") as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(1500)
        world.wait_counter("stream_records_in", 3000)
        verdict = world.drain().check(shed=["dropped_oldest"])
        assert verdict.shed["dropped_oldest"] > 500
        assert verdict.received > 500


def test_a_kill_while_the_oldest_are_dropped_leaves_the_books_in_agreement(tmp_path: Path) -> None:
    with World(tmp_path, boards=2, payload_bytes=1500, bytes_max=FULL_BYTES, when_full="drop_oldest") as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(1500)
        for records in (800, 1600, 2400):
            world.wait_acknowledged(records)
            world.gateway.kill()
            world.gateway.start()
        wait_for(world.boards.idle, "the boards to be rid of all")
        verdict = world.drain().check(shed=["dropped_oldest"])
        assert verdict.shed["dropped_oldest"] > 100
