"""Errors that name what was asked for do not repeat a token that was given in its place."""

from __future__ import annotations

import pytest

from worker.errors import NotFoundError
from worker.store import Store

TOKEN = "act.CANARYCANARYCANARY!4821.va"


@pytest.mark.parametrize("ask", ["grant", "current_pair", "request_refresh", "request_pull"])
def test_a_token_in_place_of_a_creator_is_not_repeated(store: Store, ask: str) -> None:
    """If the wrong column is pasted, the error says that there is no such creator, without the token."""
    with pytest.raises(NotFoundError) as caught:
        getattr(store, ask)(TOKEN)

    assert str(caught.value).endswith("of creator <redacted>")
    with pytest.raises(NotFoundError, match=r"of creator nobody-1$"):
        getattr(store, ask)("nobody-1")
