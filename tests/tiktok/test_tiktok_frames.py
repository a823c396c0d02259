"""A pair that comes in an odd frame: an unambiguous answer is read, and an unreadable one is kept."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import AskCreatorError, InDoubtError
from worker.tiktok import bears_refresh_token, read_token_answer, salvage

if TYPE_CHECKING:
    from tests.tiktok.conftest import Raw

DATA: dict[str, Any] = {
    "access_token": "act.new!4321.e1",
    "refresh_token": "rft.new!4321.e1",
    "expires_in": 86400,
    "refresh_token_expires_in": 31_536_000,
    "open_id": "c1",
    "scope": "b,a",
}
ENVELOPE: dict[str, Any] = {"code": 0, "message": "OK", "request_id": "20260101", "data": DATA}
TEXT = json.dumps(ENVELOPE)


def raw_deflate(data: bytes) -> bytes:
    """Compress without any head, as some servers mean `deflate`."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def brotli_like() -> bytes:
    """Bytes that nothing here can open."""
    return bytes((11 * number) % 256 for number in range(200))


READ = {
    "deflate": zlib.compress(TEXT.encode()),
    "deflate-without-head": raw_deflate(TEXT.encode()),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip-twice": gzip.compress(gzip.compress(TEXT.encode())),
    "bom": b"\xef\xbb\xbf" + TEXT.encode(),
    "utf-16-with-bom": TEXT.encode("utf-16"),
    "utf-16-le": TEXT.encode("utf-16-le"),
    "utf-16-be": TEXT.encode("utf-16-be"),
    "utf-16-be-with-bom": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
    "string": json.dumps(TEXT).encode(),
    "string-of-a-string": json.dumps(json.dumps(TEXT)).encode(),
    "string-in-utf-16": json.dumps(TEXT).encode("utf-16"),
    "data-in-a-list": json.dumps(ENVELOPE | {"data": [DATA]}).encode(),
    "data-in-a-string": json.dumps(ENVELOPE | {"data": json.dumps(DATA)}).encode(),
    "data-in-data": json.dumps(ENVELOPE | {"data": {"data": DATA}}).encode(),
}
TRAILED = {
    "trailing-chunk": TEXT.encode() + b"\r\n0\r\n\r\n",
    "jsonp": b"callback(" + TEXT.encode() + b");",
    "guarded": b")]}',\n" + TEXT.encode(),
    "cut-deflate": zlib.compress(TEXT.encode())[:-6],
    "cut-utf-16": TEXT.encode("utf-16")[:-7],
}
KEPT = {
    "two-in-a-list": json.dumps(ENVELOPE | {"data": [DATA, DATA | {"refresh_token": "rft.other"}]}).encode(),
    "under-another-name": json.dumps({"code": 0, "result": DATA}).encode(),
    "form": b"access_token=act.new&open_id=c1&refresh_token=rft.new%214321&expires_in=1",
    "python": repr(ENVELOPE).encode(),
    "xml": b"<answer><refresh_token>rft.new-4321</refresh_token></answer>",
    "cut-string": json.dumps(TEXT).encode()[:-20],
    "unknown-compression": brotli_like(),
}


@pytest.mark.parametrize("name", READ)
def test_a_pair_in_a_frame_that_means_one_thing_is_read(raw: Raw, name: str) -> None:
    """The pair, its creator and its lives are there; the remarks name what was odd, and its place."""
    answer = read_token_answer(raw(READ[name]))

    assert (answer.creator_id, answer.access_seconds) == ("c1", 86_400)
    assert answer.refresh_token is not None
    assert answer.refresh_token.reveal() == DATA["refresh_token"]
    assert bool(answer.remarks) == (name not in {"gzip", "bom"})
    assert "rft" not in str(answer.remarks)


@pytest.mark.parametrize("name", TRAILED)
def test_a_pair_with_something_around_it_is_salvaged(raw: Raw, name: str) -> None:
    """What stands before or behind the object, or a cut behind the pair, costs no pair."""
    received = raw(TRAILED[name])
    with pytest.raises(InDoubtError):
        read_token_answer(received)

    saved = salvage(received)

    assert saved is not None
    assert saved.refresh_token is not None
    assert saved.refresh_token.reveal() == DATA["refresh_token"]


@pytest.mark.parametrize("name", KEPT)
def test_a_pair_that_cannot_be_read_is_kept(raw: Raw, name: str) -> None:
    """It is stored under no guess, and the journal keeps it aside."""
    received = raw(KEPT[name])
    with pytest.raises(InDoubtError):
        read_token_answer(received)

    assert salvage(received) is None
    assert bears_refresh_token(received)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"upstream trouble",
        b"<html>Just a moment; <code>refresh_token</code> was not read</html>",
        json.dumps({"code": 0, "message": TEXT, "data": {}}).encode(),
        json.dumps(ENVELOPE | {"data": {"refresh_token": ""}}).encode(),
        TEXT.encode()[: TEXT.index("rft.new") + 4],
    ],
    ids=["empty", "text", "page", "quoted-in-a-message", "without-tokens", "cut-inside-the-token"],
)
def test_an_answer_without_a_whole_refresh_token_is_not_kept(raw: Raw, body: bytes) -> None:
    """Nothing is kept aside for a person if no pair can be in it."""
    assert not bears_refresh_token(raw(body))


@pytest.mark.parametrize("encode", [lambda text: text.encode("utf-16"), lambda text: zlib.compress(text.encode())])
def test_a_refusal_in_an_odd_frame_is_a_refusal(raw: Raw, encode: Any) -> None:
    """The code decides in whatever frame it came."""
    with pytest.raises(AskCreatorError):
        read_token_answer(raw(encode(json.dumps({"code": 40107, "message": "gone", "data": {}}))))
