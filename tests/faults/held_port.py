"""A port on loopback that stays ours while nobody listens at it: what connects is refused, and no other test running at
the same time is given the port meanwhile, to take what was meant for us."""

import contextlib
import socket

HOST = "127.0.0.1"


class HeldPort:
    def __init__(self) -> None:
        self._socket = socket.socket()
        self.number = 0
        while not self.number:
            with socket.socket() as free:
                free.bind((HOST, 0))
                number: int = free.getsockname()[1]
            with contextlib.suppress(OSError):  # somebody else may be given it meanwhile
                self._socket.bind((HOST, number))  # by number, else the kernel lets go of it with the end of listening
                self.number = number

    def socket(self) -> socket.socket:
        """To listen with; its closing does not end the listening, `refuse` does."""
        # Only while it listens: what is left of old connections would forbid it, and else the port could be given away.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return self._socket.dup()

    def refuse(self) -> None:
        with contextlib.suppress(OSError):  # nobody listened
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def close(self) -> None:
        self._socket.close()
