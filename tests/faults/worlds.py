"""A whole small world for one fault test: boards, a proxy, a broker with its book, a gateway; and its judgement."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tests.faults.fleet_cloud import FleetCloud
from tests.faults.gateways import Gateway, gateway_file
from tests.faults.oracle import Arrival, Books, Shed, Verdict, judge
from tests.faults.proxy import Proxy
from tests.faults.receivers import FakeCloud
from tests.faults.sources import Boards
from tests.faults.waiting import comes_about, wait_until

DRAIN_S = 240.0
ARRIVE_S = 60.0


class Cloud(Protocol):
    """A broker and the book of what arrived. stop and start may be called again and again."""

    @property
    def port(self) -> int: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def arrivals(self) -> list[Arrival]: ...

    def received(self) -> int:
        """How many records arrived, each counted once."""
        ...

    def close(self) -> None: ...


class World:
    """`with World(folder, boards=2) as world:`: everything is up but the gateway. options: of the stream `readings`;
    streams: the names of all, if `more` of the gateway file has others.

    Behind the proxy stands a broker that acknowledges only what its book holds, unless another cloud is given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        boards: int = 1,
        payload_bytes: int = 0,
        numeric: bool = False,
        ring: int = 4096,
        data: Path | None = None,
        more: str = "",
        streams: Sequence[str] = ("readings",),
        cloud: Cloud | None = None,
        **options: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.boards = Boards(folder / "ports", boards, payload_bytes=payload_bytes, numeric=numeric, ring=ring)
        self.cloud = cloud or FakeCloud()
        self._streams = streams
        self.proxy = Proxy(self.cloud.port)
        file = gateway_file(folder, self.boards.ports, self.proxy.port, more=more, data=data, **options)
        self.gateway = Gateway(file, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gateway.close()
        self.boards.close()
        self.proxy.close()
        self.cloud.close()

    def wait_counter(self, name: str, least: float = 1) -> None:
        """Until a counter of the gateway whose name begins so, with any labels, is that high."""

        def reached() -> bool:
            counters = self.gateway.counters()
            return sum(value for key, value in counters.items() if key.startswith(name)) >= least

        wait_until(reached, f"{name} ≥ {least}")

    def wait_acknowledged(self, count: int) -> None:
        """Until the boards are told of so many."""
        wait_until(lambda: self.boards.acknowledged() >= count, f"{count} records to be stored")

    def drain(self, *, patience_s: float = DRAIN_S) -> Verdict:
        """All faults have ended: start what is down, produce no more, wait for rest, judge."""
        self.boards.run_at(0)
        for name in self.boards.names:
            self.boards.plug(name)
        self.cloud.start()
        self.proxy.restore()
        if self.gateway.ended():
            self.gateway.start()
        drained = bool(comes_about(self.at_rest, patience_s)) and self._all_arrive()
        shed = self._shed()
        self.gateway.stop()
        arrivals = self.cloud.arrivals()
        # What a database shows is judged as it is: nobody takes repeats out of it any more.
        visible = [one.made for one in arrivals] if isinstance(self.cloud, FleetCloud) else None
        return judge(Books(self.boards.book(), arrivals, shed, visible, drained=drained))

    def _all_arrive(self) -> bool:
        """The last may still be on their way from the broker to its subscriber: wait as long as more of them come."""
        given_up = sum(one.count for one in self._shed())
        wanted = len(self.boards.book().made) - given_up
        while (received := self.cloud.received()) < wanted:
            if not comes_about(partial(self._more_than, received), ARRIVE_S):
                return False
        return bool(comes_about(self._nothing_missing, ARRIVE_S))

    def _shed(self) -> list[Shed]:
        return [*self.boards.shed(), *(one for name in self._streams for one in self.gateway.shed(name))]

    def _more_than(self, received: int) -> bool:
        return self.cloud.received() > received

    def _nothing_missing(self) -> bool:
        return not judge(Books(self.boards.book(), self.cloud.arrivals(), self._shed())).lost

    def at_rest(self) -> bool:
        """The boards hold nothing and the gateway's stream neither."""
        return self.boards.idle() and self.gateway.has_exported_all()


def wait_for(condition: Callable[[], object], what: str) -> None:
    wait_until(lambda: condition() or None, what)
