"""A link as the gateway sees it: whose it is, who may come by it, and how to write to them. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Protocol

from edge.boards.client import Client
from edge.boards.requests import Requests

REQUEST_ENVELOPE_BYTES: Final = 2  # what a request id takes more than a plain message
FORWARDER_BYTES: Final = 3  # length, type, control (MQTT-SN 1.2, 5.5)


class LinkPeer:
    """The way to one client on a link. key: which one there; b'' for whoever is on the line itself."""

    __slots__ = ("_envelope_bytes", "_link", "hello_until", "key", "requests", "window")

    def __init__(self, link: "Link", key: Hashable, envelope_bytes: int = 0) -> None:
        self._link, self.key, self._envelope_bytes = link, key, envelope_bytes
        self.window = 1
        self.requests: Requests | None = None
        self.hello_until = 0.0

    @property
    def message_bytes_max(self) -> int:
        return self._link.message_bytes_max - self._envelope_bytes

    def send(self, packets: Sequence[bytes]) -> None:
        self._link.transmit(self.key, packets)

    def send_request(self, request_id: int, packet: bytes) -> None:
        self._link.transmit_request(request_id, packet)

    def room(self) -> bool:
        return self._link.room()


class Wire(Protocol):
    """What a link does with what the gateway says."""

    def transmit(self, key: Hashable, packets: Sequence[bytes]) -> None:
        """Whole MQTT-SN messages for one client, in order."""

    def transmit_request(self, request_id: int, packet: bytes) -> None: ...

    def room(self) -> bool:
        """Whether the link takes more than answers now; `Gateway.pump` is called when it does again."""


class Link:
    """One way by which clients come, a port or the UDP socket, as the gateway sees it.

    source: as routes name it; owner: the board whose id its name is, '' for none; targets: those of the router whose
    messages its clients may get; patterns: client ids allowed beside the owner's, `*` at the end for any tail.
    message_bytes_max: of one MQTT-SN message; settling_until: until when its owner may be expected to subscribe, None
    before anyone asked.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        name: str,
        source: str,
        owner: str,
        targets: tuple[str, ...],
        patterns: Sequence[str],
        predefined: Mapping[str, str],
        clients_max: int,
        message_bytes_max: int,
    ) -> None:
        self.name, self.source, self.owner, self.targets = name, source, owner, targets
        self.clients_max, self.message_bytes_max = clients_max, message_bytes_max
        self.predefined = {int(number): topic for number, topic in predefined.items()}
        self.clients: dict[Hashable, Client] = {}
        self.told: dict[Hashable, float] = {}
        self.settling_until: float | None = None
        self.log_from, self.log_lines = 0.0, 0
        self.transmit, self.transmit_request, self.room = wire.transmit, wire.transmit_request, wire.room
        self.direct = LinkPeer(self, b"", REQUEST_ENVELOPE_BYTES)
        self._ids = frozenset(p for p in patterns if not p.endswith("*"))
        self._heads = tuple(p[:-1] for p in patterns if p.endswith("*"))

    def allows(self, client_id: str) -> bool:
        return client_id == self.owner or client_id in self._ids or client_id.startswith(self._heads)

    def peer(self, key: Hashable) -> LinkPeer:
        if key == b"":
            return self.direct
        node = key[1] if isinstance(key, tuple) and isinstance(key[1], bytes) else None
        return LinkPeer(self, key, 0 if node is None else len(node) + FORWARDER_BYTES)
