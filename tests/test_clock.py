import asyncio

import pytest

from tests.clock import Stuck, run_virtual


def test_an_hour_of_sleep_passes_at_once_and_in_order() -> None:
    woken: list[str] = []

    async def sleeper(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        woken.append(name)

    async def main() -> float:
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("late", 3600))
            group.create_task(sleeper("early", 1))
        return asyncio.get_running_loop().time() - start

    assert run_virtual(main()) == pytest.approx(3600)
    assert woken == ["early", "late"]


def test_a_deadlock_is_an_error_and_not_a_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtual(main())
