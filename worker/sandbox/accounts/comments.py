"""Comments on an account's posts, and replies to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from worker.sandbox.accounts.days import day_of, media_url
from worker.sandbox.accounts.traits import DAY_SECONDS, Account, draw
from worker.sandbox.accounts.videos import ID_SHIFT, Video

INLINE_REPLIES: Final = 3
DELETED_AFTER_DAYS: Final = 3
DELETED_EVERY: Final = 17
HIDDEN_EVERY: Final = 13
REPLIED_EVERY: Final = 5
MOST_REPLIES: Final = 7
LIKED_FOR_DAYS: Final = 7

_TEXTS: Final = ("So good!", "First \N{PARTY POPPER}", "これ好き", "Where can I get this?", "@friend look", "لطيف")


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment or reply.

    Attributes:
        comment_id: its id.
        parent_id: id of the comment it replies to; an empty text for none.
        video_id: id of the post.
        created: when it was made, in seconds since 1970.
        deleted: when it is deleted.
        hidden: whether the owner hides it.
        likes: likes that it has at a moment of listing.
        replies: how many replies it has then.
        by_owner: whether the owner of the post made it.
        author: number of its author, for the names.
        text: what it says.
    """

    comment_id: str
    parent_id: str
    video_id: str
    created: int
    deleted: float
    hidden: bool
    likes: int
    replies: int
    by_owner: bool
    author: int
    text: str


def comments_at(account: Account, video: Video, moment: float) -> list[Comment]:
    """Return the comments of a post that are listed at a moment, oldest first, hidden ones too."""
    most = int(account.traits.comments * (0.3 + 0.7 * draw(account.key, "comments", video.number)[0]))
    life = video.last_activity - video.created
    found = []
    for number in range(most):
        u = draw(account.key, f"comment {video.number}", number)
        created = video.created + 1 + int(life * ((number + 0.9 * u[0]) / most) ** 2)
        if created > moment:
            break
        deleted = float("inf")
        if number % DELETED_EVERY == DELETED_EVERY // 2:
            deleted = created + DELETED_AFTER_DAYS * DAY_SECONDS
        if moment < deleted:
            hidden = number % HIDDEN_EVERY == HIDDEN_EVERY // 2
            one = _comment(video, u, created, moment=moment, deleted=deleted, hidden=hidden)
            found.append(one)
    return found


def replies_at(account: Account, parent: Comment, moment: float) -> list[Comment]:
    """Return the replies to a comment that are listed at a moment, oldest first."""
    found = []
    for number in range(_replies(parent.comment_id)):
        u = draw(account.key, f"reply {parent.comment_id}", number)
        created = parent.created + 60 + int((number + 0.9 * u[0]) * 3_600)
        if created <= moment:
            found.append(
                Comment(
                    comment_id=_id(created, u[1]),
                    parent_id=parent.comment_id,
                    video_id=parent.video_id,
                    created=created,
                    deleted=float("inf"),
                    hidden=False,
                    likes=_likes(created, moment, int(20 * u[2] ** 3)),
                    replies=0,
                    by_owner=number == 1,
                    author=int(u[3] * 10**9),
                    text=_TEXTS[int(u[4] * len(_TEXTS))],
                )
            )
    return found


def shown_comment(one: Comment, account: Account, moment: float) -> dict[str, Any]:
    """Return a comment's fields as TikTok's list shows them."""
    name = f"owner-{account.creator_id}" if one.by_owner else f"viewer{one.author}"
    found: dict[str, Any] = {
        "comment_id": one.comment_id,
        "video_id": one.video_id,
        "user_id": f"u{one.author}",
        "unique_identifier": f"unique-{one.author}",
        "create_time": str(one.created),
        "text": one.text,
        "image_url": f"https://images.example/comment/{one.comment_id}.png" if one.author % 20 == 1 else "",
        "likes": one.likes,
        "replies": one.replies,
        "owner": one.by_owner,
        "liked": one.author % 7 == 1,
        "pinned": one.author % 40 == 1,
        "status": "HIDDEN" if one.hidden else "PUBLIC",
        "username": name,
        "display_name": name.title(),
        "profile_image": media_url(f"{name}.jpeg", moment),
    }
    return found | {"parent_comment_id": one.parent_id} if one.parent_id else found


def _comment(
    video: Video, u: tuple[float, ...], created: int, *, moment: float, deleted: float, hidden: bool
) -> Comment:
    comment_id = _id(created, u[1])
    return Comment(
        comment_id=comment_id,
        parent_id="",
        video_id=video.item_id,
        created=created,
        deleted=deleted,
        hidden=hidden,
        likes=_likes(created, moment, int(200 * u[2] ** 4)),
        replies=_replies(comment_id),
        by_owner=False,
        author=int(u[3] * 10**9),
        text=_TEXTS[int(u[4] * len(_TEXTS))],
    )


def _id(created: int, low: float) -> str:
    return str(created << ID_SHIFT | int(low * 2**ID_SHIFT))


def _likes(created: int, moment: float, final: int) -> int:
    """Return likes that grow once a day, for a week."""
    days = min(LIKED_FOR_DAYS, max(0, day_of(moment) - day_of(created)))
    return final * days // LIKED_FOR_DAYS


def _replies(comment_id: str) -> int:
    return 1 + int(comment_id) % MOST_REPLIES if int(comment_id) % REPLIED_EVERY == 0 else 0
