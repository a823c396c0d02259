"""A user of Redis with no other rights than the limiter's."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import ServerProcess
from tests.support.redis_user import line_of_page, refused, restrict
from worker.limiter import Limiter


def test_the_limiter_needs_no_other_right_than_the_pages_shorter_line(
    new_redis: Callable[..., ServerProcess], new_limiter: Callable[..., Limiter]
) -> None:
    """Permits, pauses, keys that somebody spoilt, what is due and leaving are never refused by Redis."""
    admin, url = restrict(new_redis(), *line_of_page(carries_messages=False))
    limiter = new_limiter(url)

    limiter.expect(3)
    assert limiter.admit(lane="refresh", call="call/", account="a", patience_seconds=5) == 0
    assert limiter.status().shared
    (state,) = admin.keys("evertoken:limit*:app")
    admin.delete(state)
    admin.set(state, "of a type that the limiter's scripts cannot use")
    limiter.permits(lane="refresh", call="call/", accounts=["a"])
    assert admin.type(state) != "string"
    limiter.punish("second", 0.1)
    limiter.close()

    assert refused(admin) == set()
