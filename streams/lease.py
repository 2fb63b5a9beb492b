"""Whether this process was held still for so long that its partitions may be another's.

A worker that is stopped (SIGSTOP, a paused virtual machine, a laptop's lid) past its session wakes
up believing that it still has its partitions, while another has long gone on with them. Were it to
flush, its whole rows would overwrite newer ones. So it ends instead.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Lease", "LeaseLostError"]


class LeaseLostError(Exception):
    """The process was held still for longer than its session lasts."""


class Lease:
    """Kept by a thread of its own, which a busy event loop does not delay.

    Args:
        seconds: the session timeout.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen = _now()
        self._lost = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to keep it."""
        self._seen = _now()
        self._thread.start()

    def stop(self) -> None:
        """Give it up."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise `LeaseLostError` if the process was held still past its session."""
        gap = max(self._lost, _now() - self._seen)
        if gap > self._seconds:
            raise LeaseLostError(
                f"this process stood still for {gap:.0f} s, longer than GOVERNOR_SESSION_TIMEOUT="
                f"{self._seconds:.0f}s: its partitions may be another worker's by now. Start it "
                "anew; nothing that was not acked is lost"
            )

    def _keep(self) -> None:
        while not self._end.wait(self._seconds / 4):
            now = _now()
            if now - self._seen > self._seconds:
                self._lost = max(self._lost, now - self._seen)
            self._seen = now


def _now() -> float:
    """Seconds, those of a suspended machine included where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
