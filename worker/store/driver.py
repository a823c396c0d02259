"""A connection to PostgreSQL with a deadline for each answer.

A server that hangs, because its container is frozen or its disk hangs, does not end a statement by its own timeout. Its
kernel still answers, so TCP's keepalives do not notice it either.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

if TYPE_CHECKING:
    from psycopg.abc import PQGen

RV = TypeVar("RV")

GRACE_SECONDS: Final = 5.0
"""Time beyond the server's own limit of a statement in which its answer, or its refusal, must arrive."""


class BoundedConnection(psycopg.Connection[Any]):
    """A psycopg connection with a deadline for each answer.

    Attributes:
        answer_seconds: longest wait for the answer to one statement; None waits for ever.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        """Carry out one exchange with the server; the arguments are psycopg's.

        Raises:
            psycopg.OperationalError: the server did not answer in time. The connection is closed.
        """
        if self.answer_seconds is not None:
            gen = self._bounded(gen, self.answer_seconds)
        return super().wait(gen, *args, **options)

    def _bounded(self, steps: PQGen[RV], seconds: float) -> PQGen[RV]:
        """Pass an exchange's steps on; psycopg sends 0 in place of readiness several times a second."""
        end = time.monotonic() + seconds
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server did not answer within {seconds:g} s")
                wanted = steps.send(ready)
        except StopIteration as done:
            result: RV = done.value
            return result
