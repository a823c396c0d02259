"""The namespace of an installation: which names are taken, and that a process without one has the names it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.worker.test_settings import GOOD, refusal
from worker.cli.checks import database
from worker.errors import JournalError
from worker.settings import MessengerSettings, ReaderSettings, load, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import World

KINDS = (MessengerSettings, ReaderSettings)


@pytest.mark.parametrize("name", [None, "", "  "])
def test_without_a_namespace_all_names_are_as_before(name: str | None) -> None:
    """An installation that sets none, or an empty one as compose writes it, keeps its keys and its schema."""
    settings = load_settings(GOOD | ({} if name is None else {"EVERTOKEN_NAMESPACE": name}), dotenv=None)

    assert settings.namespace is None
    assert settings.key_prefix == "evertoken:"


@pytest.mark.parametrize("name", ["a", "shop", "shop_2", "s" * 30])
def test_each_process_of_an_installation_reads_its_namespace(name: str) -> None:
    """Workers, senders of messages and readers of tokens find the same keys and tables."""
    environ = GOOD | {"EVERTOKEN_NAMESPACE": name}

    assert load_settings(environ, dotenv=None).key_prefix == f"evertoken-{name}:"
    assert {load(kind, environ, dotenv=None).namespace for kind in KINDS} == {name}


@pytest.mark.parametrize(
    "name", ["Shop", "my shop", "shop-2", "2shop", "_x", "s" * 31, "söhne", "a*", "a:b", 'a"b', "a;b"]
)
def test_a_namespace_of_other_characters_is_refused(name: str) -> None:
    """The text says what it may be, and does not repeat it."""
    said = refusal(NAMESPACE=name)

    assert said.startswith("EVERTOKEN_NAMESPACE must be 1 to 30 of the characters a-z, 0-9 and _")
    assert name not in said.split("must be 1 to 30")[0]


@pytest.mark.parametrize("name", ["public", "information_schema", "pg_toast", "pg_"])
def test_a_schema_of_postgresqls_own_is_no_namespace(name: str) -> None:
    """Its tables would lie among those of others, or PostgreSQL would refuse to make it."""
    assert refusal(NAMESPACE=name).endswith("those schemas are PostgreSQL's own")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("namespaces", [("", "two"), ("one", ""), ("one", "two")])
def test_a_worker_whose_journal_is_anothers_does_not_start(
    new_world: Callable[..., World], namespaces: tuple[str, str]
) -> None:
    """Two installations with one folder by mistake are told so before either takes the other's answers."""
    first, second = (new_world(NAMESPACE=name) for name in namespaces)
    first.services.preflight.enter()

    with pytest.raises(JournalError, match="give each installation its own EVERTOKEN_JOURNAL_DIR"):
        second.services.preflight.enter()


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"], indirect=True)
def test_the_doctor_says_for_which_namespace_it_looked(new_world: Callable[..., World], database_kind: str) -> None:
    """Whoever mistyped it sees why there are no tables."""
    found = database(new_world(NAMESPACE="shop").services)

    assert "for the namespace shop" in found.detail
    assert found.state == ("ok" if database_kind == "sqlite" else "fail")
    assert "namespace" not in database(new_world().services).detail
