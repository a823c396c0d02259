"""What an account is like, drawn from a seed and its id or set by a test; and the draws behind all figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

DAY_SECONDS: Final = 86_400
AUDIENCE_LEAST_FOLLOWERS: Final = 100
"""TikTok gives no figures about an audience that is smaller."""

_EIGHT: Final = Struct("<8Q")
_SIXTY_FOUR_BITS: Final = 2.0**64

Draws = tuple[float, float, float, float, float, float, float, float]


class TraitsError(ValueError):
    """A trait is unknown or its value is impossible; the text is one sentence for a person."""


def draw(key: bytes, about: str, number: int = 0) -> Draws:
    """Draw eight numbers from 0 up to 1, the same ones at every call.

    Args:
        key: the account's key.
        about: what the draws are for.
        number: which one of its kind, such as a day or a video.
    """
    digest = blake2b(b"%s %d" % (about.encode(), number), key=key).digest()
    a, b, c, d, e, f, g, h = _EIGHT.unpack(digest)
    full = _SIXTY_FOUR_BITS
    return a / full, b / full, c / full, d / full, e / full, f / full, g / full, h / full


@dataclass(frozen=True, slots=True)
class Traits:
    """What an account is like; a test may set any of them.

    Attributes:
        business: a Business Account; a personal one has fewer figures.
        registered: a Registered Business Account, the only kind with clicks and leads.
        private: all its posts are private, so its list of videos is empty.
        followers: followers on the day on which the sandbox started.
        growth: exponent of their growth since the account was opened: 0 none, 1 even, 2 ever faster.
        age_days: days from its opening to the start of the sandbox.
        analytics_days: days from its opening to the day on which its owner turned Analytics on.
        missing: share of days whose figures never come, from 0 to 1.
        late: share of days whose figures come up to 24 hours late, from 0 to 1.
        uncomputed: how a day or a video looks whose figures are not computed yet: `absent`, `empty` (its row without
            figures) or `zero`.
        videos: posts between the opening and the start of the sandbox.
        video_seconds: length of every video; 0 for lengths from 15 to 600 seconds.
        deleted_every: one post in this many is deleted after some days; 0 for none.
        hidden_every: one post in this many is hidden for ten days; 0 for none.
        private_run: how many posts in a row, from the middle of those before the start on, are private for good.
        comments: the most comments that one post gets.
        mentions: posts of others that mention the account, a year.
        category: the business category.
        display_name: the name; an empty text draws one.
        bio: the description of the profile.
    """

    business: bool = True
    registered: bool = True
    private: bool = False
    followers: int = 10_000
    growth: float = 1.0
    age_days: int = 365
    analytics_days: int = 0
    missing: float = 0.02
    late: float = 0.15
    uncomputed: str = "absent"
    videos: int = 120
    video_seconds: int = 0
    deleted_every: int = 23
    hidden_every: int = 31
    private_run: int = 0
    comments: int = 24
    mentions: int = 60
    category: str = "OTHERS"
    display_name: str = ""
    bio: str = ""

    def __post_init__(self) -> None:
        """Check every value."""
        for trait in fields(self):
            value, default = getattr(self, trait.name), trait.default
            wanted: Any = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise TraitsError(f"{trait.name}: {type(default).__name__} is wanted, not {type(value).__name__}")
            if not isinstance(value, str) and value < 0:
                raise TraitsError(f"{trait.name}: must be at least 0")
        if self.missing > 1 or self.late > 1:
            raise TraitsError("missing, late: a share is at most 1")
        if self.uncomputed not in STYLES:
            raise TraitsError(f"uncomputed: must be one of {', '.join(STYLES)}")
        if self.category not in CATEGORIES:
            raise TraitsError(f"category: must be one of {', '.join(CATEGORIES)}")
        if not self.age_days or self.videos > self.age_days * MOST_POSTS_A_DAY:
            raise TraitsError(f"age_days: from 1, and at most {MOST_POSTS_A_DAY} videos a day fit into it")

    def changed(self, given: dict[str, Any]) -> Traits:
        """Return a copy with some traits set.

        Raises:
            TraitsError: for an unknown name or an impossible value.
        """
        names = {trait.name for trait in fields(self)}
        for name in given:
            if name not in names:
                raise TraitsError(f"{name}: no such trait; there are {', '.join(sorted(names))}")
        return replace(self, **given)

    def to_json(self) -> dict[str, Any]:
        """Return the traits by name."""
        return asdict(self)


STYLES: Final = ("absent", "empty", "zero")
MOST_POSTS_A_DAY: Final = 50
LEAST_DRAWN_AGE_DAYS: Final = 20
MOST_DRAWN_VIDEOS: Final = 430
CATEGORIES: Final = (
    "ART_AND_CRAFTS",
    "AUTOMOTIVE_AND_TRANSPORTATION",
    "BABY",
    "BEAUTY",
    "CLOTHING_AND_ACCESSORIES",
    "EDUCATION_AND_TRAINING",
    "ELECTRONICS",
    "FINANCE_AND_INVESTING",
    "FOOD_AND_BEVERAGE",
    "GAMING",
    "HEALTH_AND_WELLNESS",
    "HOME_FURNITURE_AND_APPLIANCES",
    "MACHINERY_AND_EQUIPMENT",
    "MEDIA_AND_ENTERTAINMENT",
    "PERSONAL_BLOG",
    "PETS",
    "PROFESSIONAL_SERVICES",
    "PUBLIC_ADMINISTRATION",
    "REAL_ESTATE",
    "RESTAURANTS_AND_BARS",
    "SHOPPING_AND_RETAIL",
    "SOFTWARE_AND_APPS",
    "SPORTS_FITNESS_AND_OUTDOORS",
    "TRAVEL_AND_TOURISM",
    "OTHERS",
)
"""The categories that TikTok's page on benchmarks lists (official doc 1822388944791617)."""


def drawn_traits(key: bytes, *, mixed: bool) -> Traits:
    """Draw the traits of an account.

    Args:
        key: the account's key.
        mixed: False for registered Business Accounts alone, whose uncomputed days are absent.
    """
    a, b, c, d, e, f, g, h = draw(key, "traits")
    age_days = 365 + int(a * 300)
    plain = Traits(
        followers=int(1_000 * 10 ** (b * 3)),
        growth=0.4 + c * 1.4,
        age_days=age_days,
        analytics_days=int(d * 40),
        videos=30 + int(e * e * (MOST_DRAWN_VIDEOS - 30)),
        category=CATEGORIES[int(f * len(CATEGORIES))],
        bio="" if g < _QUARTER else "New every week \N{PARTY POPPER}",
    )
    if not mixed:
        return plain
    i, j, k, m, n, *_ = draw(key, "mixed traits")
    business = h >= _QUARTER
    return replace(
        plain,
        business=business,
        registered=business and i < _HALF,
        followers=int(m * AUDIENCE_LEAST_FOLLOWERS) if j < _TENTH else plain.followers,
        private=k < _RARE,
        uncomputed=STYLES[max(0, int(n * 10) - 7)],
        private_run=45 if plain.videos > 100 else 0,  # noqa: PLR2004  # more than two pages, where there are many posts
        age_days=age_days if i < 1 - _TENTH else LEAST_DRAWN_AGE_DAYS + int(a * 60),
    )


_HALF: Final = 0.5
_QUARTER: Final = 0.25
_TENTH: Final = 0.1
_RARE: Final = 0.03


@dataclass(frozen=True, slots=True)
class Account:
    """One account.

    Attributes:
        creator_id: its id.
        key: the key of its draws.
        traits: what it is like.
        started: the day on which the sandbox started, in days since 1970.
        seed: the seed of all accounts.
    """

    creator_id: str
    key: bytes
    traits: Traits
    started: int
    seed: int

    @property
    def opened(self) -> int:
        """The day on which it was opened, in days since 1970."""
        return self.started - self.traits.age_days

    @property
    def analytics_from(self) -> int:
        """The first day that has figures."""
        return self.opened + min(self.traits.analytics_days, self.traits.age_days)


class AccountBook:
    """Finds accounts by their ids, and keeps the traits that were set.

    Args:
        seed: seed of all figures.
        started: the day on which the sandbox started, in days since 1970.
    """

    def __init__(self, seed: int, started: int) -> None:
        self._seed = seed
        self._started = started
        self._for_all: dict[str, Any] = {}
        self._set: dict[str, dict[str, Any]] = {}

    def set_traits(self, creator_id: str | None, given: dict[str, Any]) -> None:
        """Set traits of one account, or of all those that have none of their own.

        Raises:
            TraitsError: for an unknown name or an impossible value.
        """
        known = self._for_all if creator_id is None else self._set.get(creator_id, {})
        # With what is drawn at worst, so that the account exists whatever is drawn for it.
        at_worst = {"age_days": LEAST_DRAWN_AGE_DAYS, "videos": MOST_DRAWN_VIDEOS}
        Traits().changed({**at_worst, **self._for_all, **known, **given})
        if creator_id is None:
            self._for_all.update(given)
        else:
            self._set[creator_id] = {**known, **given}

    def find(self, creator_id: str, *, mixed: bool = False) -> Account:
        """Return the account with this id; there is one for every id.

        Args:
            creator_id: the id.
            mixed: whether traits that were not set are drawn from all kinds of accounts.
        """
        key = blake2b(f"{self._seed} {creator_id}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
        traits = drawn_traits(key, mixed=mixed)
        given = {**self._for_all, **self._set.get(creator_id, {})}
        return Account(creator_id, key, traits.changed(given) if given else traits, self._started, self._seed)
