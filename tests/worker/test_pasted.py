"""What people paste into settings and secret files: harmless marks are taken away, damage is named and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.pasted import cleaned, read_file
from worker.settings import Settings, load_settings

KEYRING = '{"active": 1}'
GOOD = {
    "EVERTOKEN_TIKTOK_APP_ID": "app",
    "EVERTOKEN_TIKTOK_APP_SECRET": "s3cret-canary",
    "EVERTOKEN_TIKTOK_REDIRECT_URI": "https://app.example/callback/",
    "EVERTOKEN_KEYRING": KEYRING,
}
HARMLESS = {
    "byte order mark": "\ufeff{}",
    "carriage return": "{}\r\n",
    "quotes": '"{}"',
    "apostrophes": "'{}'",
    "zero-width space before": "\u200b{}",
    "zero-width joiner after": "{}\u200d",
    "word joiner": "\u2060{}\u2060",
    "no-break space": "\u00a0{}\u00a0",
    "direction marks": "\u200e{}\u202c",
    "soft hyphen": "{}\u00ad",
    "all at once": '\ufeff \u200b"\u00a0{}\r\n"\r\n',
}
DAMAGED = {
    "zero-width space": ("ca\u200bnary", "character 3 cannot be seen (U+200B, ZERO WIDTH SPACE)"),
    "byte order mark": ("ca\ufeffnary", "U+FEFF"),
    "no-break space": ("ca\u00a0nary", "U+00A0"),
    "line break": ("ca\nnary", "U+000A"),
    "carriage return": ("ca\rnary", "U+000D"),
    "NUL": ("canary\0", "U+0000"),
    "escape": ("ca\x1b[31mnary", "U+001B"),
    "line separator": ("ca\u2028nary", "U+2028"),
    "direction override": ("ca\u202enary", "U+202E"),
    "half a character": ("ca\udce9nary", "U+DCE9"),
    "lost character": ("ca\ufffdnary", "character 3 was lost when it was copied"),
    "quote at one end": ('"canary', "begins or ends with a quotation mark"),
    "quote at the other end": ("canary'", "begins or ends with a quotation mark"),
    "typeset quotes": ("\u201ccanary\u201d", "begins or ends with a quotation mark"),
    "unlike quotes": ("'canary\"", "begins or ends with a quotation mark"),
}


def with_files(tmp_path: Path, values: dict[str, str]) -> dict[str, str]:
    """Return settings whose values stand in files of their own."""
    environ = {}
    for name, value in values.items():
        (tmp_path / name).write_bytes(value.encode("utf-8", "surrogateescape"))
        environ[f"{name}_FILE"] = f'"{tmp_path / name}"\r'
    return environ


@pytest.mark.parametrize("wrapping", HARMLESS.values(), ids=HARMLESS)
def test_harmless_marks_around_a_value_are_taken_away(wrapping: str, tmp_path: Path) -> None:
    """In the environment, in `.env` and in files the value is what a person sees."""
    wrapped = {name: wrapping.format(value) for name, value in GOOD.items() if name != "EVERTOKEN_KEYRING"}
    wrapped["EVERTOKEN_KEYRING"] = wrapping.replace("{}", KEYRING)
    dotenv = tmp_path / ".env"
    lines = {name: value for name, value in wrapped.items() if name != "EVERTOKEN_KEYRING" and "\n" not in value}
    dotenv.write_text("\ufeff" + "".join(f"{name}={value}\r\n" for name, value in lines.items()), newline="")
    rest = {name: value for name, value in wrapped.items() if name not in lines}

    for environ, file in ((wrapped, None), (with_files(tmp_path, wrapped), None), (rest, dotenv)):
        read = load_settings(environ, dotenv=file)
        assert read.tiktok_app_id == "app"
        assert read.tiktok_app_secret.reveal() == "s3cret-canary"
        assert read.tiktok_redirect_uri == "https://app.example/callback/"
        assert read.keyring.reveal() == KEYRING


@pytest.mark.parametrize(("text", "expected"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["TIKTOK_APP_SECRET", "NOTICE_SECRET", "REDIS_URL", "JOURNAL_DIR"])
def test_damage_inside_a_value_is_refused_with_its_place(name: str, text: str, expected: str, tmp_path: Path) -> None:
    """The text names the setting and the character, and shows nothing of the value."""
    for environ in ({f"EVERTOKEN_{name}": text}, with_files(tmp_path, {f"EVERTOKEN_{name}": text})):
        given = {key: value for key, value in GOOD.items() if not key.endswith(name)} | environ
        with pytest.raises(ConfigurationError) as caught:
            load_settings(given, dotenv=None)

        assert str(caught.value).startswith(next(iter(environ)))
        assert expected in str(caught.value) or "is not UTF-8" in str(caught.value)
        assert "nary" not in str(caught.value)


def test_line_breaks_may_stand_in_a_keyring_alone() -> None:
    """A keyring that was printed over several lines is one."""
    pretty = '\ufeff{\r\n\t"active": 1\r\n}\r\n'

    read = load_settings(GOOD | {"EVERTOKEN_KEYRING": pretty}, dotenv=None)
    assert read.keyring.reveal() == pretty.strip("\ufeff\r\n")


@pytest.mark.parametrize("word", ["two words", 'in"side', "back\\slash", "\u00e4pp", "end\\n"])
@pytest.mark.parametrize("name", ["TIKTOK_APP_ID", "TIKTOK_APP_SECRET", "TIKTOK_APP_SECRET_NEXT"])
def test_what_cannot_be_an_apps_id_or_secret_is_refused(name: str, word: str) -> None:
    """TikTok would answer with a code that looks like a revoked app."""
    with pytest.raises(ConfigurationError, match=f"EVERTOKEN_{name} holds a blank, a quote") as caught:
        load_settings(GOOD | {f"EVERTOKEN_{name}": word}, dotenv=None)

    assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("canary".encode("utf-16"), "is written in UTF-16"),
        ("canary".encode("utf-16-be"), "U+0000"),
        (b"can\xe4ry", "is not UTF-8 at byte 4"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"x" * (1 << 20) + b"y", "is longer than"),
    ],
)
def test_a_secret_file_that_cannot_be_decoded_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    """The place is named, the content is not shown, and no foreign error is chained to it."""
    (tmp_path / "secret").write_bytes(content)

    with pytest.raises(ConfigurationError, match="the place") as caught:
        read_file(tmp_path / "secret", "the place")

    assert expected in str(caught.value)
    assert "nary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_path_that_leads_to_no_file_is_one_sentence(tmp_path: Path) -> None:
    """A missing file, a folder that a container made in its place, and a path that cannot be."""
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file" / "below", Path("\0")):
        with pytest.raises(ConfigurationError, match=r"^the place cannot be read"):
            read_file(path, "the place")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("EVERTOKEN_RENEW_AT=0.5\n".encode("utf-16"), "is written in UTF-16; save it as UTF-8"),
        (b"EVERTOKEN_RENEW_AT=0.5\n# caf\xe9\n", "is not UTF-8 at byte 29"),
        (b"A=1\nEVERTOKEN_KEYRING='canary\n", "line 2: is not NAME=value"),
    ],
)
def test_a_dotenv_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    """No setting falls back to its default because the file that names it was passed over."""
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(content)

    with pytest.raises(ConfigurationError) as caught:
        load_settings(GOOD, dotenv=dotenv)

    assert f"{dotenv}" in str(caught.value)
    assert expected in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_dotenv_without_the_right_to_read_is_one_sentence(tmp_path: Path) -> None:
    """The reason is the system's own."""
    (tmp_path / ".env").touch(0o000)
    with pytest.raises(ConfigurationError, match="cannot be read \\(Permission denied\\)"):
        load_settings(GOOD, dotenv=tmp_path / ".env")


def test_a_dotenv_that_is_a_folder_or_speaks_to_others_is_let_be(tmp_path: Path) -> None:
    """A virtual environment is often named `.env`, and a line of another application is none of ours."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").write_text("OTHER='open\nEVERTOKEN_RENEW_AT=0.5\n")

    assert load_settings(GOOD, dotenv=tmp_path / "folder").tiktok_app_id == "app"
    assert load_settings(GOOD, dotenv=tmp_path / "other").renew_at == 0.5


@pytest.mark.parametrize(
    "name",
    ["\ufeffEVERTOKEN_RENEW_AT", "EVERTOKEN_\u200bRENEW_AT", "EVERTOKEN_RENEW_AT\r", "EVER\u00adTOKEN_RENEW_AT"],
)
def test_a_name_with_a_character_that_cannot_be_seen_is_refused(name: str) -> None:
    """It looks like a setting and would be none."""
    with pytest.raises(ConfigurationError, match="holds a character that cannot be seen") as caught:
        load_settings(GOOD | {name: "0.5"}, dotenv=None)

    assert str(caught.value).isprintable()


LINKS = {
    "EVERTOKEN_SERVICE_HOST": "10.0.0.1",
    "EVERTOKEN_SERVICE_PORT": "80",
    "EVERTOKEN_SERVICE_PORT_HTTP_METRICS": "80",
    "EVERTOKEN_PORT": "tcp://10.0.0.1:80",
    "EVERTOKEN_PORT_80_TCP": "tcp://10.0.0.1:80",
    "EVERTOKEN_PORT_80_TCP_PROTO": "tcp",
    "EVERTOKEN_PORT_80_TCP_PORT": "80",
    "EVERTOKEN_PORT_80_TCP_ADDR": "10.0.0.1",
    "EVERTOKEN_METRICS_SERVICE_HOST": "10.0.0.2",
    "EVERTOKEN_METRICS_PORT": "tcp://10.0.0.2:9090",
    "EVERTOKEN_METRICS_PORT_9090_TCP": "tcp://10.0.0.2:9090",
    "EVERTOKEN_REDIS_PORT": "udp://10.0.0.3:53",
    "EVERTOKEN_WORKER_PULL_PORT_53_UDP_ADDR": "10.0.0.3",
}


def test_kubernetes_service_links_are_passed_over(tmp_path: Path) -> None:
    """What Kubernetes sets for services of our name is no setting and hides none; a mistyped name is still refused."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("EVERTOKEN_METRICS_PORT=9100\n")

    assert load_settings(GOOD | LINKS, dotenv=None).metrics_port is None
    assert load_settings(GOOD | LINKS, dotenv=dotenv).metrics_port == 9100
    assert load_settings(GOOD | LINKS | {"EVERTOKEN_METRICS_PORT": "9101"}, dotenv=dotenv).metrics_port == 9101
    for name, value in (("EVERTOKEN_METRICS_PORT", "tcp"), ("EVERTOKEN_METRIC_PORT", "9100")):
        with pytest.raises(ConfigurationError, match=name):
            load_settings(GOOD | {name: value}, dotenv=None)


def test_no_setting_looks_like_a_service_link() -> None:
    """A name of ours that Kubernetes could set too would be passed over."""
    from worker.sources import PREFIX, SERVICE_LINK  # noqa: PLC0415 - the rule itself is looked at here alone

    names = [PREFIX + field.upper() + end for field in Settings.model_fields for end in ("", "_FILE")]
    assert [name for name in names if SERVICE_LINK.search(name)] == []


def test_a_value_of_nothing_but_marks_counts_as_none() -> None:
    """What looks empty is empty."""
    assert cleaned('\ufeff""\r\n', "the place") == ""
    assert load_settings(GOOD | {"EVERTOKEN_NOTICE_URL": '""'}, dotenv=None).notice_url is None
