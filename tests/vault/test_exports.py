"""Sealed files of pairs: only the recipient opens them, and whatever was changed, moved or cut off is noticed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import pytest

from worker.errors import UsageError
from worker.vault.exports import MAGIC, ExportSealer, OpenedExport, Recipient, RecipientKey, is_sealed

LINES = [f'{{"refresh_token": "rft.CANARY{number}"}}\n'.encode() for number in range(4)]


@pytest.fixture
def key() -> RecipientKey:
    """A recipient."""
    return RecipientKey.new()


def sealed_for(key: RecipientKey) -> list[bytes]:
    """Return a sealed file's lines: the header, four lines and the end."""
    sealer = ExportSealer(Recipient.read(key.recipient.text), app_id="app")
    return [sealer.header, *map(sealer.line, LINES), sealer.end()]


def opened(lines: list[bytes], key: RecipientKey) -> bytes:
    """Return what a sealed file holds."""
    return io.BufferedReader(OpenedExport(io.BytesIO(b"".join(lines)), key)).read()


def test_what_was_sealed_opens_for_the_recipient_and_can_be_read_twice(key: RecipientKey) -> None:
    """The private key goes through its text; no token is in the file, and two files of the same pairs differ."""
    lines = sealed_for(key)
    again = RecipientKey.read(key.to_text() + "\n", "KEY")

    stream = io.BufferedReader(OpenedExport(io.BytesIO(b"".join(lines)), again))

    assert stream.read() == b"".join(LINES)
    stream.seek(0)
    assert list(stream) == LINES
    assert b"CANARY" not in b"".join(lines)
    assert not set(sealed_for(key)) & set(lines)
    assert "evertoken-recipient-key" not in repr(key)


def _flip(line: bytes) -> bytes:
    raw = bytearray(base64.b64decode(line))
    raw[3] ^= 1
    return base64.b64encode(bytes(raw)) + b"\n"


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a flipped bit": (lambda found: [*found[:2], _flip(found[2]), *found[3:]], "line 3 .* was changed or moved"),
    "two lines changed places": (lambda found: [found[0], found[2], found[1], *found[3:]], "line 2 .*changed or moved"),
    "a line left out": (lambda found: [*found[:2], *found[3:]], "line 3 .* was changed or moved"),
    "a line twice": (lambda found: [*found[:3], found[2], *found[3:]], "line 4 .* was changed or moved"),
    "no base64": (lambda found: [*found[:1], b"%%\n", *found[2:]], "line 2 .* was changed or moved"),
    "cut off between lines": (lambda found: found[:3], "cut off after line 3"),
    "cut off in a line": (lambda found: [*found[:3], found[3][:9]], "cut off after line 3"),
    "no end": (lambda found: found[:-1], "cut off after line 5"),
    "more after the end": (lambda found: [*found, found[1]], "line 6 .* was changed or moved"),
    "another app in the header": (
        lambda found: [found[0].replace(b'"app"', b'"foe"'), *found[1:]],
        "line 2 .* was changed or moved",
    ),
    "another file's header": (lambda found: [MAGIC + b"{}\n", *found[1:]], "or its first line was changed"),
    "another format": (lambda found: [b"{}\n", *found], "no file of `evertoken grants export`"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_sentence(key: RecipientKey, damage: str) -> None:
    """The sentence names the line, and holds nothing of the content."""
    change, sentence = DAMAGE[damage]

    with pytest.raises(UsageError, match=sentence) as caught:
        opened(change(sealed_for(key)), key)

    assert "CANARY" not in str(caught.value)


def test_another_key_opens_nothing(key: RecipientKey) -> None:
    """The sentence names both recipients, so that the right key can be looked for."""
    other = RecipientKey.new()

    with pytest.raises(UsageError) as caught:
        opened(sealed_for(key), other)

    assert str(caught.value) == (
        f"the file is sealed for recipient {key.recipient.name}, and this is the key of {other.recipient.name}"
    )


@pytest.mark.parametrize(
    "text", ["", "evertoken-recipient-", "evertoken-recipient-AAAA", "age1xyz", "evertoken-recipient-é"]
)
def test_what_is_no_recipient_is_refused(text: str) -> None:
    """A mistyped or foreign public part seals nothing."""
    with pytest.raises(UsageError, match="this is no recipient"):
        Recipient.read(text)


def test_keys_that_are_mixed_up_are_told_apart(key: RecipientKey) -> None:
    """A private key in the place of a public part is refused without being shown, and so is the reverse."""
    with pytest.raises(UsageError, match="give the public part") as caught:
        Recipient.read(key.to_text())
    with pytest.raises(UsageError, match="KEY holds no recipient's key"):
        RecipientKey.read(key.recipient.text, "KEY")

    assert key.to_text() not in str(caught.value)


def test_a_point_that_gives_no_secret_seals_nothing() -> None:
    """A public part of small order would make a key that everybody knows."""
    with pytest.raises(UsageError, match="no proper key"):
        ExportSealer(Recipient(bytes(32)), app_id="app")


def test_a_sealed_file_is_recognized_by_its_beginning(key: RecipientKey) -> None:
    """Whoever imports it without a key is told so; the look leaves the file at its start."""
    stream = io.BytesIO(b"".join(sealed_for(key)))

    assert is_sealed(stream)
    assert stream.tell() == 0
    assert not is_sealed(io.BytesIO(b'{"creator_id": "ada"}\n'))
