"""Pages for operators: the fleet, one creator's history and links, notices and consumers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from worker import timeline
from worker.accounts.look import look
from worker.desk.charts import account_of
from worker.desk.pages import SEE_OTHER, Pages, go_to
from worker.desk.sessions import FORM_FIELD, LOGIN, Operator, Sessions, own_path
from worker.desk.web import Asked, Handler, ProblemError, Ways
from worker.errors import NotFoundError
from worker.links import ConsentLinks
from worker.policy.creator_id import is_creator_id
from worker.policy.notice_kinds import type_of
from worker.policy.scope import is_reference
from worker.services import Services
from worker.store import GrantCondition, GrantStatus, NoticeView
from worker.telemetry import Fact

HOURS: Final = 24
WEEKS: Final = 12
LISTED: Final = 100
HISTORY: Final = 50
HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 86_400
INVITATION_DAYS: Final = 7
NO_VALUES: Final = {"reference": None, "creator": None}
LONGEST_DAYS: Final = 30
LARGEST_ID: Final = 2**63 - 1
LONGEST_SEARCH: Final = 255
FILTERS: Final = (*(each.value for each in GrantStatus), *(each.value for each in GrantCondition))

Page = Callable[[Asked, Operator], Response]


class Operating:
    """The operators' pages."""

    def __init__(self, services: Services, pages: Pages, sessions: Sessions, *, address: str) -> None:
        """Take what pages stand on.

        Args:
            services: the use cases.
            pages: renders them.
            sessions: finds out who asks.
            address: where people reach the desk; invitations lead there.
        """
        self._services = services
        self._store = services.store
        self._pages = pages
        self._sessions = sessions
        self._links = ConsentLinks(
            services.store, services.tiktok, scopes=services.settings.tiktok_scopes, page=address
        )

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the routes."""
        return [
            ways.route("/", "root", {"GET": lambda _: go_to("/ops")}),
            ways.route(LOGIN, "login", {"GET": self.login, "POST": self.log_in}),
            ways.route("/ops/logout", "logout", {"POST": self._form(self.log_out)}),
            ways.route("/ops", "overview", {"GET": self._for_operators(self.overview)}),
            ways.route("/ops/grants", "grants", {"GET": self._for_operators(self.grants)}),
            ways.route(
                "/ops/invite", "invite", {"GET": self._for_operators(self.invite), "POST": self._form(self.invited)}
            ),
            ways.route("/ops/notices", "notices", {"GET": self._for_operators(self.notices)}),
            ways.route("/ops/notices/{name}/resend", "resend", {"POST": self._form(self.resend)}),
            ways.route("/ops/consumers", "consumers", {"GET": self._for_operators(self.consumers)}),
            ways.route("/ops/consumers/{name}/revoke", "revoke", {"POST": self._form(self.revoke)}),
            ways.route("/ops/grants/{creator_id:path}", "grant", {"GET": self._for_operators(self.grant)}),
        ]

    def login(self, asked: Asked) -> Response:
        """Show the form for the password."""
        path = own_path(asked.query(("next",)).get("next", ""), otherwise="/ops")
        return self._pages.show("login", path=path, wrong=False)

    def log_in(self, asked: Asked) -> Response:
        """Begin a session, or show the form again."""
        form = asked.form(("password", "next"))
        path = own_path(form.get("next", ""), otherwise="/ops")
        answer = self._sessions.log_in(asked, form.get("password", ""))
        if answer is None:
            return self._pages.show("login", status=401, path=path, wrong=True)
        answer.status_code, answer.headers["Location"] = SEE_OTHER, path
        return answer

    def log_out(self, asked: Asked, _: Operator, __: dict[str, str]) -> Response:
        """End the session."""
        answer = go_to(LOGIN)
        self._sessions.log_out(asked, answer)
        return answer

    def overview(self, asked: Asked, operator: Operator) -> Response:
        """Show the fleet: states, the token that ends first, and what is coming."""
        asked.query(())
        fleet, hours, weeks = self._store.fleet_status(), [0] * HOURS, [0] * WEEKS
        for each in self._store.ends_by_week(weeks=WEEKS):
            weeks[each.week] = each.grants
        for part in self._store.load(slice_seconds=HOUR_SECONDS):
            if part.slice < HOURS:
                hours[part.slice] += part.grants
        return self._pages.show(
            "overview",
            operator=operator,
            fleet=fleet,
            brake=self._store.brake(),
            hours=hours,
            weeks=weeks,
        )

    def grants(self, asked: Asked, operator: Operator) -> Response:
        """List grants: a page of them, those of a state, or what is searched for."""
        given = asked.query(("q", "state", "after"))
        wanted, state = given.get("q", "").strip(), given.get("state", "")
        if state and state not in FILTERS:
            raise ProblemError(422, "parameter", "there is no such state")
        if len(wanted) > LONGEST_SEARCH or not wanted.isprintable():
            raise ProblemError(422, "parameter", f"search for at most {LONGEST_SEARCH} printable characters")
        statuses = {each.value for each in GrantStatus}
        if wanted:
            found = self._store.search_grants(wanted, LISTED)
        else:
            found = self._store.grants(
                status=GrantStatus(state) if state in statuses else None,
                condition=GrantCondition(state) if state and state not in statuses else None,
                after_id=_number(given.get("after", "0")),
                limit=LISTED,
            )
        more = None
        if len(found) == LISTED and not wanted:
            more = "/ops/grants?" + urlencode({"state": state, "after": found[-1].grant_id})
        rows = [(each, f"/ops/grants/{quote(each.creator_id, safe='')}") for each in found]
        return self._pages.show(
            "grants",
            operator=operator,
            rows=rows,
            now=self._store.ping(),
            wanted=wanted,
            state=state,
            states=FILTERS,
            more=more,
        )

    def grant(self, asked: Asked, operator: Operator) -> Response:
        """Show one creator's grant: what happened, why, and what comes next."""
        asked.query(())
        creator_id = asked.part("creator_id")
        try:
            found = self._store.grant(creator_id if is_creator_id(creator_id) else "")
        except NotFoundError:
            raise ProblemError(404, "unknown-creator", "there is no grant of this creator") from None
        now = self._store.ping()
        snapshots = self._store.snapshots(found.grant_id, HISTORY)
        events = timeline.events(found, self._store.attempts(found.grant_id, HISTORY), snapshots)
        following = timeline.what_next(
            found, self._store.attempts_aside(found.grant_id), now=now, renew_at=self._services.settings.renew_at
        )
        return self._pages.show(
            "grant",
            operator=operator,
            grant=found,
            now=now,
            events=events[::-1],
            following=following,
            account=account_of(look(self._store, found.creator_id)),
            handed=self._store.hand_outs(creator_id=creator_id, limit=10),
            notices=self._noticed(self._store.notices(creator_id=creator_id, limit=10)),
            days=INVITATION_DAYS,
        )

    def invite(self, asked: Asked, operator: Operator) -> Response:
        """Show the form for an invitation."""
        asked.query(())
        return self._pages.show("invite", operator=operator, link=None, days=INVITATION_DAYS, values=NO_VALUES)

    def invited(self, asked: Asked, operator: Operator, form: dict[str, str]) -> Response:
        """Make an invitation and show its link, once."""
        asked.query(())
        reference, creator_id = form.get("reference", "").strip() or None, form.get("creator", "").strip() or None
        if reference is not None and not is_reference(reference):
            raise ProblemError(422, "parameter", "a reference has 1 to 255 printable characters")
        if creator_id is not None and not is_creator_id(creator_id):
            raise ProblemError(422, "parameter", "a creator's id has 1 to 255 printable characters without a blank")
        days = _number(form.get("days", str(INVITATION_DAYS)))
        if not 1 <= days <= LONGEST_DAYS:
            raise ProblemError(422, "parameter", f"an invitation lives for 1 to {LONGEST_DAYS} days")
        link = self._links.make(life_seconds=days * DAY_SECONDS, reference=reference, creator_id=creator_id)
        self._services.hook(Fact("desk.invited", {"operator": operator.name, "creator_id": creator_id}))
        values = {"reference": reference, "creator": creator_id}
        return self._pages.show("invite", operator=operator, link=link, days=days, values=values)

    def notices(self, asked: Asked, operator: Operator) -> Response:
        """List notices, newest first."""
        given = asked.query(("waiting", "before"))
        before = _number(given.get("before", "0")) or None
        found = self._store.notices(waiting="waiting" in given, before_id=before, limit=LISTED)
        more = None
        if len(found) == LISTED:
            kept = {"waiting": given["waiting"]} if "waiting" in given else {}
            more = "/ops/notices?" + urlencode(kept | {"before": str(found[-1].notice_id)})
        return self._pages.show(
            "notices", operator=operator, notices=self._noticed(found), more=more, waiting="waiting" in given
        )

    def resend(self, asked: Asked, operator: Operator, _: dict[str, str]) -> Response:
        """Post a notice again to the addresses that get its kind; the worker's next round does."""
        found = self._store.notice(asked.part("name"))
        if found is None:
            raise ProblemError(404, "unknown-notice", "there is no such notice")
        addresses = self._services.settings.notice_addresses
        chosen = [each.name for each in addresses if each.kinds is None or found.kind in each.kinds]
        if not chosen:
            raise ProblemError(422, "no-address", "no address of EVERTOKEN_NOTICE_URL gets this kind of notice")
        self._store.resend(found.notice_id, chosen)
        self._services.hook(Fact("desk.resent", {"operator": operator.name, "notice": found.notice_id}))
        return go_to("/ops/notices")

    def consumers(self, asked: Asked, operator: Operator) -> Response:
        """List the neighbours that get tokens."""
        asked.query(())
        return self._pages.show("consumers", operator=operator, consumers=self._store.consumers(revoked=True))

    def revoke(self, asked: Asked, operator: Operator, _: dict[str, str]) -> Response:
        """Revoke a consumer's key."""
        try:
            revoked = self._store.revoke_consumer(asked.part("name"))
        except NotFoundError:
            raise ProblemError(404, "unknown-consumer", "there is no such consumer whose key works") from None
        self._services.hook(
            Fact("consumer.revoked", {"consumer": revoked.name, "handle": revoked.handle, "operator": operator.name})
        )
        return go_to("/ops/consumers")

    def _for_operators(self, page: Page) -> Handler:
        """Return a handler that leads strangers to the form for the password."""

        def answer(asked: Asked) -> Response:
            operator = self._sessions.operator(asked)
            if operator is not None:
                return page(asked, operator)
            if self._services.settings.desk_operator_header is not None:
                raise ProblemError(401, "no-operator", "the proxy before the desk has not said who you are")
            path = asked.request.url.path
            query = asked.request.url.query
            target = own_path(f"{path}?{query}" if query else path, otherwise="/ops")
            return RedirectResponse(f"{LOGIN}?{urlencode({'next': target})}", SEE_OTHER)

        return answer

    def _form(self, act: Callable[[Asked, Operator, dict[str, str]], Response]) -> Handler:
        """Return a handler of forms that only an operator's own page can have sent."""

        def page(asked: Asked, operator: Operator) -> Response:
            form = asked.form((FORM_FIELD, "reference", "creator", "days"))
            self._sessions.refuse_forged(asked, operator, form.pop(FORM_FIELD, ""))
            return act(asked, operator, form)

        def answer(asked: Asked) -> Response:
            operator = self._sessions.operator(asked)
            if operator is None:
                raise ProblemError(401, "no-operator", "your session has ended; log in again")
            return page(asked, operator)

        return answer

    def _noticed(self, found: list[NoticeView]) -> list[tuple[NoticeView, str, str]]:
        """Return notices with their kinds as people know them and what became of them."""
        states: dict[int, list[str]] = {notice.notice_id: [] for notice in found}
        for row in self._store.deliveries(list(states)):
            where = row.address if row.delivered_at else f"waits for {row.address}"
            states[row.notice_id].append(f"{where}: {row.problem}" if row.problem and not row.delivered_at else where)
        return [
            (notice, type_of(notice.kind), ", ".join(states[notice.notice_id]) or "nowhere yet") for notice in found
        ]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID)) and int(text) <= LARGEST_ID):
        raise ProblemError(422, "parameter", "what has to be a number is none")
    return int(text)
