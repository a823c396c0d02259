"""The parameters of one read: each check refuses what TikTok refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from worker.sandbox import token_calls
from worker.sandbox.accounts.traits import Account
from worker.sandbox.fault_kinds import Plan
from worker.sandbox.registry import Consent
from worker.sandbox.token_calls import BAD_PARAMETER, RefusedError
from worker.sandbox.world import World

MOST_DIGITS: Final = 20
"""A number in a query with more digits is none."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read as it was understood.

    Attributes:
        world: the sandbox.
        consent: the consent of the token.
        account: whose data is answered.
        now: seconds since 1970.
        sent: the parameters of the query.
        plan: the faults that strike.
    """

    world: World
    consent: Consent
    account: Account
    now: float
    sent: dict[str, str]
    plan: Plan

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number of the query.

        Raises:
            RefusedError: it is none, or out of range.
        """
        text = self.sent.get(name, str(default))
        try:
            value = int(text) if len(text) <= MOST_DIGITS else None
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise RefusedError(BAD_PARAMETER, f"{name}: Must be a whole number from {least} to {most}.")
        return value

    def choice(self, name: str, default: str, *choices: str) -> str:
        """Return a parameter that has a few values.

        Raises:
            RefusedError: it has another one.
        """
        value = self.sent.get(name, default)
        if value not in choices:
            raise RefusedError(BAD_PARAMETER, f"{name}: Must be one of {', '.join(choices)}.")
        return value

    def needed(self, name: str) -> str:
        """Return a parameter that must be there.

        Raises:
            RefusedError: it is missing or empty.
        """
        if not self.sent.get(name):
            raise RefusedError(BAD_PARAMETER, f"{name}: Missing data for required field.")
        return self.sent[name]

    def texts(self, name: str, most: int) -> list[str] | None:
        """Return a JSON list of texts; None if the parameter was not sent.

        Raises:
            RefusedError: it is none, or too long.
        """
        if name not in self.sent:
            return None
        found = read_json(self.sent[name], name)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found) or len(found) > most:
            raise RefusedError(BAD_PARAMETER, f"{name}: Not a JSON list of at most {most} texts.")
        return found

    def need_scope(self, scope: str, what: str) -> None:
        """Check that the creator granted a scope.

        Raises:
            RefusedError: it is not granted.
        """
        if scope not in self.consent.scope:
            raise RefusedError(token_calls.SCOPE_MISSING, f"The scope {scope} of {what} is not granted.")

    def fields(self, default: tuple[str, ...], scopes: dict[str, str]) -> frozenset[str]:
        """Return the fields asked for.

        Raises:
            RefusedError: one is unknown, retired or not granted; then nothing is answered.
        """
        retired = self.plan.retired
        known = [name for name in scopes if retired.get(name) != BAD_PARAMETER]
        names = default if "fields" not in self.sent else read_json(self.sent["fields"], "fields")
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise RefusedError(BAD_PARAMETER, "fields: Not a JSON list of names.")
        for name in names:
            if name not in known:
                raise RefusedError(BAD_PARAMETER, f"fields: {name!r} must be one of {', '.join(known)}.")
            if name in retired:
                raise RefusedError(retired[name], f"The field {name} is offline.")
        for name in names:
            self.need_scope(scopes[name], name)
        return frozenset(names)


def read_json(text: str, name: str) -> Any:
    """Read a parameter that is JSON.

    Raises:
        RefusedError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedError(BAD_PARAMETER, f"{name}: Not JSON.") from None
