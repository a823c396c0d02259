"""Flower's configuration starts nothing without a password and lets nobody change anything."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import plain_environ
from tests.support.warm import server_for


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "FLOWER_BASIC_AUTH",
        "FLOWER_BASIC_AUTH_FILE",
        "FLOWER_UNAUTHENTICATED_API",
        "FLOWER_ADDRESS",
        "FLOWER_BROKER_API",
        "FLOWER_BROKER_API_FILE",
    ):
        monkeypatch.delenv(name, raising=False)


def options(root: Path) -> dict[str, Any]:
    """Run the file as Flower does and return its names."""
    return runpy.run_path(str(root / "worker/flowerconfig.py"))


@pytest.mark.parametrize("named", ["", "flowerconfig.py"])
def test_refuses_to_start_without_a_password(tmp_path: Path, named: str) -> None:
    """Flower without options says what is missing, whatever lies in the folder; a file that is named counts."""
    (tmp_path / "flowerconfig.py").write_text("raise SystemExit('the file of the folder')")
    environ = plain_environ() | {"FLOWER_CONF": named}
    command = ["-m", "celery", "-A", "worker", "flower", "--port=0"]
    ran = server_for(environ).run(command, environ=environ, folder=tmp_path, text=None, seconds=60)

    assert ran.returncode == 1
    assert ("the file of the folder" if named else "Flower needs a password") in ran.stderr


@pytest.mark.parametrize("text", ["operator", "operator:", ":password", "a:b,c"])
def test_refuses_half_a_credential_without_showing_it(root: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A name without a password, or the reverse, is refused, and the text does not repeat it."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", text)
    with pytest.raises(SystemExit) as refused:
        options(root)

    assert text not in str(refused.value).replace("user:password", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("operator:CANARY,CANARY", "a password has no comma"),
        ("operator:CANARY\u00e9", "ASCII"),
        ("op\u00e9rator:CANARY", "ASCII"),
        ("operator:CANARY" + "x" * 1024, "1024 characters"),
        ("operator:CANARY\tx", "character 16 cannot be seen"),
        (" , ", "Flower needs a password"),
    ],
)
def test_a_password_that_could_not_log_in_is_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """Flower would end each request with an error, or take the half behind a comma for another user."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", text)
    with pytest.raises(SystemExit, match=said) as refused:
        options(root)

    assert "CANARY" not in str(refused.value)


def test_takes_the_password_from_a_file(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file may hold one credential a line; blank ends do not count."""
    (tmp_path / "auth").write_text("operator:one\n reader:two \n", encoding="utf-8")
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(tmp_path / "auth"))

    assert options(root)["basic_auth"] == ["operator:one", "reader:two"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfoperator:one\r\nreader:two\r\n",
        b"\"operator:one\"\r\n'reader:two'",
        b"\xe2\x80\x8boperator:one\xc2\xa0\nreader:two",
    ],
)
def test_harmless_marks_in_the_password_file_are_no_part_of_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    """A byte order mark would be a part of the name, and a carriage return a part of the password."""
    (tmp_path / "auth").write_bytes(content)
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", f"{tmp_path / 'auth'}\r")

    assert options(root)["basic_auth"] == ["operator:one", "reader:two"]


@pytest.mark.parametrize("content", ["operator:o\u200bne", "operator:o\0ne", "operator:\u201cone\u201d", "\ufeff\r\n"])
def test_a_damaged_password_file_stops_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    """A password that nobody could type is refused, and not shown."""
    (tmp_path / "auth").write_text(content, encoding="utf-8")
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(tmp_path / "auth"))
    with pytest.raises(SystemExit, match=r"FLOWER_BASIC_AUTH|Flower needs a password") as refused:
        options(root)

    assert "operator" not in str(refused.value)


def test_starts_beside_a_kubernetes_service_named_flower(root: Path) -> None:
    """FLOWER_PORT=tcp://... is no port; Flower comes as far as its own check of the password."""
    links = {"FLOWER_PORT": "tcp://10.0.0.1:5555", "FLOWER_SERVICE_HOST": "10.0.0.1", "FLOWER_PORT_5555_TCP": "tcp://x"}
    command = ["-m", "celery", "-A", "worker", "flower"]
    environ = plain_environ() | links
    ran = server_for(environ).run(command, environ=environ, folder=root, text=None, seconds=60)

    assert "Flower needs a password" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_cannot_be_read_stops_it(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing secret file is not taken for no password."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="FLOWER_BASIC_AUTH_FILE cannot be read"):
        options(root)


def test_takes_the_address_of_the_management_api_from_a_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It holds a password, so it is no option; what is no such address is refused, and not shown."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "operator:one")
    assert options(root)["broker_api"] is None
    monkeypatch.setenv("FLOWER_BROKER_API_FILE", str(tmp_path / "api"))
    (tmp_path / "api").write_text("https://watcher:CANARY@rabbit.internal:15671/api/\n", encoding="utf-8")

    assert options(root)["broker_api"] == "https://watcher:CANARY@rabbit.internal:15671/api/"
    for wrong in (
        "watcher:CANARY@rabbit/api/",
        "amqp://u:CANARY@rabbit/api/",
        "http://u:CANARY@rabbit/x",
        "http://a\nCANARY",
    ):
        (tmp_path / "api").write_text(wrong, encoding="utf-8")
        with pytest.raises(SystemExit, match="FLOWER_BROKER_API must be") as refused:
            options(root)
        assert "CANARY" not in str(refused.value)


def test_refuses_an_open_api(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch that opens Flower's API without a password is not taken along with one."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "operator:one")
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    with pytest.raises(SystemExit, match="FLOWER_UNAUTHENTICATED_API"):
        options(root)


def test_is_read_only_and_on_loopback_by_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be called or stopped through it, and its memory is bounded."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "operator:one")
    found = options(root)

    assert found["read_only"] is True
    assert found["address"] == "127.0.0.1"
    assert found["max_tasks"] <= 10_000
    assert found["purge_offline_workers"] == 600
