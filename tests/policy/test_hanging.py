"""When a process is known to hang."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from worker.policy.hanging import BUSY_FACTOR, Evidence, Progress

LIMIT = 120.0
STILL = Progress(7)
BUSY = Progress(7, busy=True)


def hangs_at(looks: Sequence[tuple[float, Progress | None]]) -> float | None:
    """Return when the process is known to hang, with looks at these times."""
    evidence = Evidence(LIMIT)
    return next((at for at, progress in looks if evidence.hangs(at, progress)), None)


def every(seconds: float, *, until: float, progress: Progress | None = STILL, begin: float = 0) -> list[
    tuple[float, Progress | None]
]:  # fmt: skip
    """Return looks that all see the same."""
    return [(begin + seconds * look, progress) for look in range(int((until - begin) / seconds) + 1)]


def test_a_process_that_could_work_and_stands_still_hangs_after_the_limit() -> None:
    """No earlier and no later than the limit."""
    assert hangs_at(every(5, until=115)) is None
    assert hangs_at(every(5, until=300)) == LIMIT


@pytest.mark.parametrize("at", [0, 5, 60, 115])
def test_one_sign_of_work_begins_the_time_again(at: float) -> None:
    """However late in the time it comes."""
    looks = [(seen, Progress(8) if seen >= at + 5 else STILL) for seen, _ in every(5, until=1000)]

    assert hangs_at(looks) == at + 5 + LIMIT


@pytest.mark.parametrize("at", [0, 5, 60, 115])
def test_one_look_at_which_it_could_not_work_begins_the_time_again(at: float) -> None:
    """Redis that is away for a moment excuses what was before it: the consumer has to connect again."""
    looks = [(seen, None if seen == at else STILL) for seen, _ in every(5, until=1000)]

    assert hangs_at(looks) == at + 5 + LIMIT


def test_a_process_that_can_never_work_never_hangs() -> None:
    """A Redis that is away for a day ends nobody."""
    assert hangs_at(every(5, until=86_400, progress=None)) is None


def test_a_busy_worker_gets_much_longer() -> None:
    """It asks for no message while its tasks run, and their own deadlines end those."""
    assert hangs_at(every(5, until=100_000, progress=BUSY)) == LIMIT * BUSY_FACTOR


def test_a_worker_that_was_busy_gets_the_whole_time_once_it_has_room() -> None:
    """The time in which it had no thread free does not count against it."""
    looks = [*every(5, until=1000, progress=BUSY), *every(5, until=2000, begin=1005)]

    assert hangs_at(looks) == 1005 + LIMIT


@pytest.mark.parametrize("stopped", [61.0, 3600.0, 86_400.0])
def test_a_process_that_was_stopped_itself_is_not_taken_for_hung(stopped: float) -> None:
    """A host that slept, or a SIGSTOP: nobody looked meanwhile, so nobody knows."""
    looks = [(0.0, STILL), (5.0, STILL), (5.0 + stopped, STILL), (10.0 + stopped, STILL)]

    assert hangs_at(looks) is None
