"""Instants and lengths of time in words, for the terminal and for pages; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def moment(value: datetime | None) -> str:
    """Return an instant for people, in UTC to the second."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def span(value: timedelta | float | None) -> str:
    """Return a length of time for people, in its two largest units; a negative one begins with a minus."""
    if value is None:
        return "-"
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return sign + " ".join(parts[:2])


def until(left: timedelta | float | None, *, future: str = "in {}", past: str = "{} ago") -> str:
    """Return for people when something happens or happened.

    Args:
        left: the time until it, a float in seconds; negative if it is over, None for a dash.
        future: the words for what is to come, around the length of time.
        past: the words for what is over.
    """
    if left is None:
        return "-"
    seconds = left.total_seconds() if isinstance(left, timedelta) else left
    return (past if seconds < 0 else future).format(span(abs(seconds)))


def paused(since: datetime) -> str:
    """Return since when a grant has been paused, and what ends that."""
    return f"paused since {moment(since)} UTC, until somebody runs `evertoken grants resume`"
