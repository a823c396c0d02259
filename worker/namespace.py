"""The namespace of an installation: it keeps the names of several apart in one Redis and one PostgreSQL database."""

from __future__ import annotations

import re
from typing import Final

NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,29}", re.ASCII)
"""A name that PostgreSQL takes without quotes, that no pattern of Redis's rights reads as more than itself, and that
leaves room in an ACL line; it has no hyphen, so `evertoken-a` is never the beginning of another one's names."""
NOT_OURS: Final = frozenset({"public", "information_schema"})
"""Schemas that PostgreSQL makes itself."""


def bad_namespace(name: str, namespace: str) -> str | None:
    """Return what is wrong with a namespace, or None.

    Args:
        name: the setting, for the text.
        namespace: its value.
    """
    if NAMESPACE.fullmatch(namespace) is None:
        return (
            f"{name} must be 1 to 30 of the characters a-z, 0-9 and _, beginning with a letter; leave it out if Redis "
            "and the database serve one installation"
        )
    if namespace in NOT_OURS or namespace.startswith("pg_"):
        return f"{name} must not be public, information_schema or pg_...: those schemas are PostgreSQL's own"
    return None


def key_prefix(namespace: str | None) -> str:
    """Return what each key and channel of an installation in Redis begins with.

    Without a namespace it is `evertoken:`. The rights `~evertoken:*` give no access to a key of a namespace, nor the
    other way about.
    """
    return "evertoken:" if namespace is None else f"evertoken-{namespace}:"
