"""The service manager's notification protocol (sd_notify(3)) over its Unix datagram socket."""

import os
import socket
from datetime import timedelta


class Notifier:
    """Tells the service manager how the daemon is; does nothing where there is none."""

    def __init__(self, address: str | None = None) -> None:
        """Use this address, or that of $NOTIFY_SOCKET, which is taken out of the environment for children's sake."""
        self._address = address if address is not None else os.environ.pop("NOTIFY_SOCKET", "")
        watchdog = os.environ.pop("WATCHDOG_USEC", "")
        for_us = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = int(watchdog) if watchdog.isdecimal() and for_us else 0
        #: How often the watchdog wants to hear of us; None: there is no watchdog.
        self.watchdog = timedelta(microseconds=microseconds) if microseconds else None

    def ready(self, status: str) -> None:
        """Start-up or a reload has ended."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self, monotonic_us: int) -> None:
        """A reload begins; `ready` ends it. The time is CLOCK_MONOTONIC in microseconds."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self) -> None:
        """The daemon begins to stop."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto(message.encode(), address)
            except OSError:
                # The manager went away or is restarting; it will judge by the process itself.
                return


def _line(text: str) -> str:
    return " ".join(text.split())
