"""Pasted redirects: what is read, what is refused, and that no refusal shows the code."""

from __future__ import annotations

import pytest

from worker.consent.redirect import LONGEST, read_redirect
from worker.errors import UsageError

CODE = "CANARYcode"
REGISTERED = "https://a.example/cb/"


@pytest.mark.parametrize(
    ("pasted", "code", "state"),
    [
        pytest.param("https://a.example/cb/?code=ab%2Ac%21d&scopes=x%2Cy&state=s1", "ab*c!d", "s1", id="whole address"),
        pytest.param("?code=ab%2Ac&state=s1", "ab*c", "s1", id="query with its mark"),
        pytest.param("code=ab%2Ac&state=s1", "ab*c", "s1", id="query alone"),
        pytest.param("  <https://a.example/cb/?code=x&state=s>\n", "x", "s", id="white space and brackets around"),
        pytest.param("https://a.example/cb/?code=a%252Ab&state=s", "a%2Ab", "s", id="decoded once, not twice"),
        pytest.param("https://a.example/cb/?code=a+b&state=s", "a+b", "s", id="a plus stays a plus"),
        pytest.param("https://a.example/cb/?auth_code=adv&state=s", "adv", "s", id="the advertiser flow's name"),
        pytest.param("https://a.example/cb/?auth_code=second&code=first&state=s", "first", "s", id="code goes first"),
        pytest.param(
            "https://a.example/cb/?code=&auth_code=adv&state=s", "adv", "s", id="an empty code counts for nothing"
        ),
        pytest.param("https://a.example/cb/?code=x&state=s#_=_", "x", "s", id="fragment cut off"),
        pytest.param("https://a.example/cb/?code=x", "x", "", id="no state: judged later"),
        pytest.param("https://a.example/cb/?code=x&code=x&state=s", "x", "s", id="the same value twice"),
    ],
)
def test_a_redirect_gives_code_and_state(pasted: str, code: str, state: str) -> None:
    """Whatever form the redirect is pasted in, the code comes out decoded exactly once."""
    redirect = read_redirect(pasted, expected=REGISTERED)

    assert (redirect.code, redirect.state) == (code, state)


@pytest.mark.parametrize(
    ("pasted", "sentence"),
    [
        pytest.param("", "nothing was pasted", id="nothing"),
        pytest.param("   \n", "nothing was pasted", id="blank"),
        pytest.param("https://a.example/cb/", "holds no code", id="no query"),
        pytest.param("https://t.example/auth/?client_key=1&state=s", "the consent link itself", id="the link itself"),
        pytest.param(f"?code={CODE}&code=other&state=s", "twice", id="two codes"),
        pytest.param(f"?code={CODE}&sta te=s", "a space", id="space within"),
        pytest.param(f"?code={CODE}%FF&state=s", "does not decode", id="not UTF-8"),
        pytest.param(
            f"?code={CODE}%252A&scopes=x%252Cy&state=s", "percent-encoded a second time", id="query encoded twice"
        ),
        pytest.param(
            f"https%3A%2F%2Fa.example%2F%3Fcode%3D{CODE}%26state%3Ds",
            "percent-encoded a second time",
            id="whole encoded",
        ),
        pytest.param(f"?code={CODE}{'x' * LONGEST}", "longer than", id="huge"),
        pytest.param("?error=access_denied&state=s", "did not agree", id="access_denied"),
        pytest.param("?error=invalid_scope", "EVERTOKEN_TIKTOK_SCOPES", id="invalid_scope"),
        pytest.param("?error=unauthorized_client&error_type=client_key", "permission", id="unauthorized_client"),
        pytest.param("?errCode=10003", "as registered", id="10003"),
        pytest.param(
            "?error=brand_new&log_id=2026AB", "log id for TikTok's support: 2026AB", id="unknown, with log id"
        ),
        pytest.param(f"?error=access_denied&code={CODE}", "did not agree", id="an error goes before a code"),
        pytest.param(f"?error=%1b%5b31m{CODE}", "not shown", id="an error that is no plain word"),
    ],
)
def test_a_wrong_redirect_is_explained_without_its_code(pasted: str, sentence: str) -> None:
    """Each way to be wrong has its own sentence, and none of them repeats what may be a code."""
    with pytest.raises(UsageError, match=sentence) as caught:
        read_redirect(pasted, expected=REGISTERED)

    assert CODE not in str(caught.value)


def test_a_redirect_does_not_show_its_code() -> None:
    """Printing the value shows neither code nor state."""
    assert CODE not in repr(read_redirect(f"?code={CODE}&state={CODE}", expected=REGISTERED))
