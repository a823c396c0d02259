"""Addresses of the database: every form in use is read as it was meant, or refused in a sentence without its values."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from worker.addresses import read_database
from worker.errors import ConfigurationError

NAME = "EVERTOKEN_DATABASE_URL"
USER = {"user": "u", "password": "p"}


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgresql://u:p@db/name", {**USER, "host": "db", "dbname": "name"}),
        ("postgres://u:p@db:6432/name", {**USER, "host": "db", "port": "6432", "dbname": "name"}),
        ("postgresql+psycopg2://u:p@db/name", {**USER, "host": "db", "dbname": "name"}),
        ("postgresql+asyncpg://u:p@db/name", {**USER, "host": "db", "dbname": "name"}),
        ("POSTGRES://u:p@db/name", {**USER, "host": "db", "dbname": "name"}),
        (
            "postgresql://u:p@a,b/name",
            {**USER, "host": "a,b", "port": ",", "dbname": "name", "target_session_attrs": "read-write"},
        ),
        (
            "postgresql://u:p@a:1,[::1]:2/name?target_session_attrs=any",
            {**USER, "host": "a,::1", "port": "1,2", "dbname": "name", "target_session_attrs": "any"},
        ),
        ("postgresql://u:p@db/name?pgbouncer=true", {**USER, "host": "db", "dbname": "name"}),
        (
            "postgresql://u:p@db/name?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            {**USER, "host": "db", "dbname": "name", "sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"},
        ),
        ("postgresql://u:a%23%40b@/name?host=/run/pg", {"user": "u", "password": "a#@b", "host": "/run/pg"}),
        ("postgresql://u:p@%2Frun%2Fpg/name", {**USER, "host": "/run/pg"}),
        ("postgresql:///name", {"dbname": "name"}),
        ("postgresql://u:p@db/name?options=-c%20geqo%3Doff", {"options": "-c geqo=off"}),
    ],
)
def test_a_form_that_other_programs_write_is_read_as_libpq_reads_it(url: str, meant: dict[str, str]) -> None:
    """An address is copied from a hoster's page or another application, and works as it is."""
    read = read_database(NAME, url)

    assert read.kind == "postgresql"
    assert conninfo_to_dict(read.libpq).items() >= meant.items()
    assert "u:p" not in repr(read)


def test_the_schema_of_an_address_is_read_and_is_no_option_of_libpq() -> None:
    """`?pgbouncer=true&schema=x`, as Prisma writes it, names the schema of the tables."""
    read = read_database(NAME, "postgresql://u:p@db/name?pgbouncer=true&schema=tokens-1&sslmode=require")

    assert read.schema == "tokens-1"
    assert conninfo_to_dict(read.libpq).keys() == {"user", "password", "host", "dbname", "sslmode"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u:canary@db/name", "must begin with sqlite:/// or postgresql://"),
        ("jdbc:postgresql://db/name?password=canary", "must begin with sqlite:/// or postgresql://"),
        ("postgresql+canary://db/name", "must begin with"),
        ("postgresql:/canary/name", "must begin with"),
        ("sqlite+pysqlcipher:///canary.db", "must begin with"),
        ("postgresql://u:p@db/name?prepare_threshold=0", "option prepare_threshold, which is not taken: take it out"),
        ("postgresql://u:p@db/name?statement_cache_size=0", "Evertoken prepares no statement by name"),
        ("postgresql://u:p@db/name?connection_limit=1", "one process opens at most 20 connections"),
        ("postgresql://u:p@db/name?ssl=true", "write sslmode=require"),
        ("postgresql://u:p@db/name?currentSchema=canary", "write schema=NAME"),
        ("postgresql://u:p@db/name?client_encoding=latin1", "Evertoken speaks UTF-8"),
        ("postgresql://u:p@db/name?sslkeylogfile=/canary", "option sslkeylogfile, which is not taken: take it out"),
        ("postgresql://u:p@db/name?pgbouncer=canary", "option pgbouncer"),
        ("postgresql://u:p@db/name?canary%20canary=1", "that is no name"),
        ("postgresql://u:p@db/name?schema=", "names one schema"),
        ("postgresql://u:p@db/name?schema=canary,public", "names one schema"),
        ("postgresql://u:p@db/name?schema=a%22;canary", "names one schema"),
        ("postgresql://u:p@/name?host=a:1&host=canary:2", "several hosts are written host1:port1,host2:port2"),
        ("postgresql://u:p@canary:70000/name", "cannot be read"),
        ("postgresql://u:p@a:1,canary:x/name", "cannot be read"),
        ("postgresql://u:p@::1/canary", "cannot be read"),
        ("postgresql://u:canary%@db/name", "cannot be read"),
        ("postgresql://u:canary word@db/name", "cannot be read"),
        ("sqlite://canary.db", "must name a file"),
        ("sqlite://", "must begin with"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file:canary.db", "must name a file"),
        ("sqlite:///var/canary/", "must name a file"),
        ("sqlite:///canary.db?mode=ro", "takes none"),
        ("sqlite:////~/canary.db", "only ~ at the beginning"),
        ("sqlite:///$HOME/canary.db", "no variable"),
        ("sqlite:///var/${X}/canary.db", "no variable"),
    ],
)
def test_what_would_be_read_wrongly_is_refused_in_a_sentence(url: str, expected: str) -> None:
    """Nothing of an address is passed over or guessed, and the text shows no value of it."""
    with pytest.raises(ConfigurationError, match=NAME) as caught:
        read_database(NAME, url)

    assert expected in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_tilde_before_the_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in one's home is found from every folder, and nobody makes a folder that is called ~."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert read_database(NAME, "sqlite:///~/x.db").file == tmp_path / "x.db"
    assert read_database(NAME, "sqlite:////srv/a@b#c/x.db").file == Path("/srv/a@b#c/x.db")
    assert read_database(NAME, "sqlite:///./var/x.db").file == Path("var/x.db")
    with pytest.raises(ConfigurationError, match="home folder that ~ stands for is not known"):
        read_database(NAME, "sqlite:///~nobody-of-that-name/x.db")
