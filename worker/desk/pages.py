"""Pages from templates: every value is escaped, and nothing on them runs or comes from elsewhere."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from worker.desk.web import Asked, ProblemError, Ways
from worker.policy.wording import moment, span, until

HERE: Final = Path(__file__).parent
STYLE: Final = (HERE / "static" / "desk.css").read_bytes()
STYLE_PATH: Final = f"/static/desk-{sha256(STYLE).hexdigest()[:12]}.css"
"""Its name changes with its content, so that browsers may keep it."""
SEE_OTHER: Final = 303
TITLES: Final = {
    400: "That did not arrive whole",
    401: "Please log in",
    403: "You may not do this",
    404: "There is nothing here",
    405: "That is not possible here",
    413: "That was too much",
    422: "That cannot be used",
    429: "Too many tries",
    500: "Something went wrong here",
    503: "Please come back in a moment",
}


class Pages:
    """Renders the templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "moment": moment,
            "span": span,
            "until": until,
            "figure": figure,
            "style": STYLE_PATH,
        }

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the route of the style."""
        return [ways.route(STYLE_PATH, "style", {"GET": self._style})]

    def show(self, template: str, /, *, status: int = 200, **values: Any) -> Response:
        """Return a page.

        Args:
            template: its name without `.html`.
            status: HTTP's.
            values: what the template shows.
        """
        return HTMLResponse(self._templates.get_template(f"{template}.html").render(values), status)

    def trouble(self, asked: Asked, problem: ProblemError) -> Response:
        """Return a page that tells a problem to a person."""
        del asked
        page = self.show(
            "told", status=problem.status, title=TITLES[problem.status], lines=[problem.detail], again=None
        )
        page.headers.update(problem.headers)
        return page

    def _style(self, asked: Asked) -> Response:
        del asked
        return Response(STYLE, media_type="text/css", headers={"Cache-Control": "public, max-age=31536000, immutable"})


def figure(value: int | None) -> str:
    """Return a count for people; a dash if it is not known."""
    return "-" if value is None else f"{value:,}"


def go_to(path: str) -> Response:
    """Return the browser to a page of the desk after it posted a form.

    Args:
        path: a path of ours, which begins with one slash.
    """
    return RedirectResponse(path, SEE_OTHER)
