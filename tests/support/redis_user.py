"""The users of Redis with the least rights that docs/operations.md gives, on a real server."""

from __future__ import annotations

import re
from pathlib import Path

import redis

from tests.conftest import ServerProcess

PAGE = Path(__file__).parents[2] / "docs/operations.md"


def line_of_page(prefix: str = "evertoken:", *, carries_messages: bool = True) -> list[str]:
    """Return the words behind `user evertoken` on the page, for keys and channels with this prefix.

    Args:
        prefix: what each key begins with.
        carries_messages: False for the line of a Redis that counts the quota alone.
    """
    lines = re.findall(r"^    user evertoken (.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(lines) == 2
    return str(lines[0 if carries_messages else 1]).replace("evertoken:", prefix).split()


def acl(admin: redis.Redis, *words: str) -> object:
    """Run a command about rights."""
    answer: object = admin.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no type for it
    return answer


def restrict(server: ServerProcess, *rights: str) -> tuple[redis.Redis, str]:
    """Give a server the user; return a client of its administrator and the user's address."""
    admin = redis.Redis(port=server.port, decode_responses=True)
    acl(admin, "ACL SETUSER", "evertoken", *rights)
    acl(admin, "ACL LOG", "RESET")
    return admin, server.url.replace("//", "//evertoken:PASSWORD@")


def refused(admin: redis.Redis) -> set[str]:
    """Return the commands, keys and channels that were refused since then."""
    entries = acl(admin, "ACL LOG")
    assert isinstance(entries, list)
    return {entry["object"] for entry in entries}
