"""The last word of a process on its own requests: never more of them than the quota, whatever Redis permits."""

from __future__ import annotations

from collections import deque

from worker.limiter.shared import Windows


class Ceiling:
    """Counts the requests of this process in the second and the minute that end now; its caller holds a lock.

    Redis decides for all processes together, and whoever can write to Redis can make it permit anything. This count is
    out of their reach. As long as Redis is in order it holds up nobody for longer than an answer was late.
    """

    def __init__(self, windows: Windows) -> None:
        self._sent = [
            (windows.second, deque[float](maxlen=max(1, int(windows.per_second)))),
            (windows.minute, deque[float](maxlen=max(1, int(windows.per_minute)))),
        ]

    def admit(self, now: float) -> float:
        """Return 0 and count one request, or the seconds until there is room for it.

        Args:
            now: monotonic seconds; never less than in the call before.
        """
        wait = max(times[0] + window - now if len(times) == times.maxlen else 0.0 for window, times in self._sent)
        if wait > 0:
            return wait
        for _, times in self._sent:
            times.append(now)
        return 0.0
