"""The sandbox's options: one table drives its checks, its JSON form and its command-line options."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final

READABLE_SCOPES: Final = (
    "user.info.basic",
    "user.info.username",
    "user.info.profile",
    "user.info.stats",
    "user.account.type",
    "user.insights",
    "video.list",
    "video.insights",
    "comment.list",
)


class OptionsError(ValueError):
    """An option is unknown or its value is impossible; the text is one sentence for a person."""


def _option(default: Any, why: str, *, least: float | None = None, choices: tuple[str, ...] = (), **more: Any) -> Any:
    """Describe one option; `fixed` in `more` marks those that a running sandbox cannot change."""
    shown = not more.pop("secret", False)
    return field(default=default, repr=shown, metadata={"why": why, "least": least, "choices": choices, **more})


@dataclass(frozen=True)
class SandboxOptions:
    """All options of the sandbox; the texts beside the defaults say what each option does.

    Raises:
        OptionsError: for a value of the wrong type or out of range.
    """

    host: str = _option("127.0.0.1", "Address to listen on.", fixed=True)
    port: int = _option(0, "Port to listen on; 0 takes a free one.", least=0, most=65_535, fixed=True)
    ledger: str | None = _option(None, "New file for the ledger (JSON lines).", fixed=True)
    ledger_all: bool = _option(False, "Write a ledger line for every call, not only for those that bring pairs.")
    app_id: str = _option("sandbox-app", "The app's id (client_key, client_id).", fixed=True)
    app_secret: str = _option("sandbox-secret", "The app's secret.", fixed=True, secret=True)
    next_secret: str | None = _option(None, "A second accepted app secret.", fixed=True, secret=True)
    redirect_uri: str = _option("https://localhost/callback/", "The registered redirect address.", fixed=True)
    scopes: tuple[str, ...] = _option(READABLE_SCOPES, "Scopes approved for the app, comma separated.")
    rotation: str = _option("strict", "What a refresh does to the refresh token.", choices=("strict", "grace", "same"))
    grace_seconds: float = _option(30.0, "How long a used refresh token still answers in grace rotation.", least=0)
    grace_answer: str = _option(
        "same", "What it then brings: the same pair again or yet another.", choices=("same", "another")
    )
    reuse_revokes: bool = _option(False, "A used refresh token that comes again kills the whole consent.")
    reconsent: str = _option(
        "kills", "What a new consent does to the creator's older pairs.", choices=("kills", "keeps")
    )
    old_access: str = _option("lives", "What a refresh does to the old access token.", choices=("lives", "dies"))
    expires_in: int = _option(86_400, "Life of an access token in seconds.", least=1)
    refresh_expires_in: int = _option(31_536_000, "Seconds from the consent to the end of all refreshing.", least=1)
    code_life: int = _option(600, "Life of an authorization code in seconds.", least=1)
    dead_refresh_code: int = _option(40_107, "Error code for an unknown or used refresh token.", least=1)
    latency: float = _option(0.0, "Seconds between a call's work and its answer.", least=0)
    answer_style: str = _option("current", "Shape of token answers.", choices=("current", "early", "v1.2"))
    quota_per_second: int | None = _option(None, "Calls a second for the app.", least=1)
    quota_per_minute: int | None = _option(None, "Calls in any 60 seconds for the app.", least=1)
    quota_per_account_minute: int | None = _option(None, "Calls in any 60 seconds for one creator and call.", least=1)
    quota_per_day: int | None = _option(None, "Calls a UTC day for the app.", least=1)
    quota_account_code: int = _option(40_100, "Error code when one creator's quota is broken.", least=1)
    punishment_scale: float = _option(1.0, "Factor on how long a broken quota shuts the app out.", least=0)
    canary: str = _option("", "Text inside every token and code, so that leaks can be found.", fixed=True)
    seed: int = _option(0, "Seed of all figures, and of the draws for faults with a probability.", fixed=True)
    first_day: str | None = _option(
        None, "Day (YYYY-MM-DD) at whose beginning the clock stands until it is moved.", fixed=True
    )
    accounts: str = _option(
        "plain",
        "What accounts are like: registered Business Accounts alone, or a mix with personal, small and private ones.",
        choices=("plain", "mixed"),
    )
    settle_days: int = _option(3, "Days from the beginning of a day until its figures stand.", least=2)
    contested: str = _option(
        "text",
        "What the daily followers_count is, by the text of TikTok's page the total, by its samples the day's net.",
        choices=("text", "samples"),
    )
    longest_span_days: int = _option(60, "Most days that one read of an account may span.", least=1)
    reply_ids: str = _option(
        "text",
        "How ids come in the replies beside a comment; as numbers, with times as dates.",
        choices=("text", "numbers"),
    )

    def __post_init__(self) -> None:
        """Check every value against its description."""
        object.__setattr__(self, "scopes", tuple(self.scopes))
        for option in fields(self):
            _check(option.name, str(option.type), getattr(self, option.name), dict(option.metadata))
        if not self.canary.isalnum() and self.canary:
            raise OptionsError("canary: only letters and digits fit into a token")
        try:
            _ = self.stands_at
        except ValueError:
            raise OptionsError(f"first_day: {self.first_day} is no date as YYYY-MM-DD") from None
        if not self.scopes or not all(isinstance(scope, str) and scope for scope in self.scopes):
            raise OptionsError("scopes: at least one name, and no empty ones")

    @property
    def stands_at(self) -> datetime | None:
        """Where the clock stands until it is moved; None for the machine's clock."""
        if self.first_day is None:
            return None
        return datetime.combine(date.fromisoformat(self.first_day), time.min, UTC)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> SandboxOptions:
        """Read options from their JSON form.

        Raises:
            OptionsError: for an unknown name or an impossible value.
        """
        return cls(**_known(given, {option.name for option in fields(cls)}))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; it holds the app secret, because the sandbox's child process needs it."""
        return asdict(self)

    def changed(self, given: dict[str, Any]) -> SandboxOptions:
        """Return a copy with some run-time options changed.

        Raises:
            OptionsError: for an unknown or fixed name or an impossible value.
        """
        free = {option.name for option in fields(self) if not option.metadata.get("fixed")}
        return replace(self, **_known(given, free))


def _known(given: dict[str, Any], names: set[str]) -> dict[str, Any]:
    for name in given:
        if name not in names:
            raise OptionsError(f"{name}: no such option here; there are {', '.join(sorted(names))}")
    if "scopes" in given and not isinstance(given["scopes"], list | tuple):
        raise OptionsError("scopes: a list is wanted")
    return given


def _check(name: str, kind: str, value: Any, rules: dict[str, Any]) -> None:
    if value is None and "None" in kind:
        return
    plain = kind.removesuffix(" | None")
    wanted: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}
    expected = wanted.get(plain)
    if expected and (not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool)):
        raise OptionsError(f"{name}: {plain} is wanted, not {type(value).__name__}")
    least = rules["least"]
    if least is not None and not value >= least:
        raise OptionsError(f"{name}: must be at least {least:g}")
    if rules.get("most") is not None and value > rules["most"]:
        raise OptionsError(f"{name}: must be at most {rules['most']}")
    if rules["choices"] and value not in rules["choices"]:
        raise OptionsError(f"{name}: must be one of {', '.join(rules['choices'])}")
