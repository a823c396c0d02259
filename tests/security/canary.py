"""Canaries: secrets that are looked for wherever they must not stand, in every form that a program could give them.

A finding names the secret, the form, the place and the offset, and never shows the secret itself.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

PACKED: Final = {b"\x1f\x8b\x08": 31, b"\x78\x01": 15, b"\x78\x5e": 15, b"\x78\x9c": 15, b"\x78\xda": 15}
"""How gzip and zlib streams begin, and what `zlib` calls them."""
UNPACKED_LIMIT: Final = 64 * 2**20
LEAST_UNPACKED: Final = 8
"""A stream that gives less is none: two bytes that look like its beginning are common."""
SHORTEST: Final = 7
"""A shorter secret would be found by chance, in base64 above all."""
REDIS_NAMES: Final = {10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b", 34: '\\"', 92: "\\\\"}


@dataclass(frozen=True)
class Canary:
    """One secret that is looked for.

    Attributes:
        name: what people call it; it stands in findings.
        secret: its bytes, never printed.
    """

    name: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < SHORTEST:
            raise ValueError(f"{self.name}: a canary of less than {SHORTEST} bytes would be found by chance")


@dataclass(frozen=True)
class Finding:
    """A canary that stands where it must not.

    Attributes:
        place: which file, page, record or dump.
        offset: where in it, in bytes; for a packed stream, where its beginning stands.
        name: of the canary.
        form: how the canary is written there.
    """

    place: str
    offset: int
    name: str
    form: str

    def __str__(self) -> str:
        return f"{self.place}, byte {self.offset}: {self.name} ({self.form})"


def forms(secret: bytes) -> dict[str, bytes]:
    """Return every form of a secret that is looked for, by name; forms that are alike stand there once."""
    found: dict[str, bytes] = {"as it is": secret}
    found |= _escapes(secret) | _base64(secret)
    hexadecimal = secret.hex().encode()
    found |= {"hexadecimal": hexadecimal, "hexadecimal in capitals": hexadecimal.upper()}
    found["a list of numbers"] = ", ".join(map(str, secret)).encode()
    found["a list of numbers without spaces"] = ",".join(map(str, secret)).encode()
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        pass
    else:
        found |= _of_text(text)
    unlike: dict[bytes, str] = {}
    for name, needle in found.items():
        unlike.setdefault(needle, name)
    return {name: needle for needle, name in unlike.items()}


def _escapes(secret: bytes) -> dict[str, bytes]:
    """Return what is left of bytes where they are quoted byte by byte, wholly or only as far as they must be."""
    quoted = quote(secret, safe="").encode()
    wholly = "".join(f"%{byte:02X}" for byte in secret).encode()
    escaped = "".join(f"\\x{byte:02x}" for byte in secret).encode()
    return {
        "quoted for a URL": quoted,
        "quoted for a URL in small letters": _small_quotes(quoted),
        "quoted for a path": quoted.replace(b"%2F", b"/"),
        "quoted for a path in small letters": _small_quotes(quoted).replace(b"%2f", b"/"),
        "quoted for a form": quoted.replace(b"%20", b"+"),
        "quoted for a form in small letters": _small_quotes(quoted).replace(b"%20", b"+"),
        "quoted for a URL wholly": wholly,
        "quoted for a URL wholly in small letters": wholly.lower(),
        "as Python prints bytes": repr(secret + b'"')[2:-2].encode(),
        "as Redis prints bytes": "".join(
            REDIS_NAMES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in secret
        ).encode(),
        "escaped byte by byte": escaped,
        "escaped byte by byte in capitals": escaped.upper().replace(b"\\X", b"\\x"),
        "escaped in octal": "".join(f"\\{byte:03o}" for byte in secret).encode(),
    }


def _small_quotes(quoted: bytes) -> bytes:
    head, *parts = quoted.split(b"%")
    return b"%".join([head, *(part[:2].lower() + part[2:] for part in parts)])


def _base64(secret: bytes) -> dict[str, bytes]:
    """Return the letters of base64 that the secret alone decides, for each of the three places it can begin at."""
    found: dict[str, bytes] = {}
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret)
        first = -(-before * 8 // 6)
        last = (before + len(secret)) * 8 // 6
        found[f"base64, {before} bytes in"] = text[first:last]
        found[f"base64 of URLs, {before} bytes in"] = text[first:last].translate(bytes.maketrans(b"+/", b"-_"))
    return found


def _of_text(text: str) -> dict[str, bytes]:
    inside = json.dumps(text)[1:-1]
    points = "".join(f"\\u{ord(letter):04x}" for letter in text)
    return {
        "in JSON": inside.encode(),
        "in JSON with its slashes escaped": inside.replace("/", "\\/").encode(),
        "in JSON inside JSON": json.dumps(inside)[1:-1].encode(),
        "in JSON by code points": points.encode(),
        "in JSON by code points in capitals": points.upper().replace("\\U", "\\u").encode(),
        "in HTML": "".join({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}.get(it, it) for it in text).encode(),
        "in HTML by code points": "".join(f"&#{ord(letter)};" for letter in text).encode(),
        "UTF-16, low byte first": text.encode("utf-16-le"),
        "UTF-16, high byte first": text.encode("utf-16-be"),
        "in capitals": text.upper().encode(),
        "in small letters": text.lower().encode(),
    }


class Scan:
    """Looks for canaries in one place after the other, and keeps what it found and how much it has seen.

    Attributes:
        findings: every canary that was found.
        seen: how many bytes of each place were looked at, by its name.
    """

    def __init__(self, canaries: Sequence[Canary]) -> None:
        self.findings: list[Finding] = []
        self.seen: dict[str, int] = {}
        self._needles = [
            (needle, canary.name, form) for canary in canaries for form, needle in forms(canary.secret).items()
        ]

    def look(self, place: str, content: bytes) -> list[Finding]:
        """Look at a place's bytes, and at what is packed in them.

        Returns:
            What was found there: of each form of each canary, where it stands first.
        """
        self.seen[place] = self.seen.get(place, 0) + len(content)
        found = list(self._search(place, content))
        for offset, unpacked in _streams(content):
            packed = self._search(place, unpacked)
            found += [Finding(place, offset, each.name, f"packed, {each.form}") for each in packed]
        self.findings += found
        return found

    def _search(self, place: str, content: bytes) -> Iterator[Finding]:
        for needle, name, form in self._needles:
            offset = content.find(needle)
            if offset >= 0:
                yield Finding(place, offset, name, form)


def _streams(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what is packed with gzip or zlib anywhere in the content, with the place where it begins."""
    for magic, kind in PACKED.items():
        at = content.find(magic)
        while at >= 0:
            unpacker = zlib.decompressobj(kind)
            unpacked = b""
            try:
                for start in range(at, len(content), 4096):  # piece by piece, to keep what a broken end leaves
                    unpacked += unpacker.decompress(content[start : start + 4096], UNPACKED_LIMIT)
                    if unpacker.eof or len(unpacked) >= UNPACKED_LIMIT:
                        break
            except zlib.error:
                pass
            if len(unpacked) >= LEAST_UNPACKED:
                yield at, unpacked
            at = content.find(magic, at + 1)
