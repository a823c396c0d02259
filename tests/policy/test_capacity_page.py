"""`docs/capacity.md` has the figures that the planner computes."""

from __future__ import annotations

from pathlib import Path

from worker.planning.capacity import DAY, Crowd, Load, fits, trades
from worker.policy.quota import usable_rate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capacity.md"
SPANS = {86_400.0: "24 hours", 7_200.0: "2 hours"}
RENEW_AT = 2 / 3


def table_under(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, its own heading left out."""
    lines = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_page_says_how_many_creators_fit() -> None:
    """Each level of TikTok's, at both lives, with and without pulls."""
    assert table_under("## How many creators fit") == [
        [
            fit.tier,
            SPANS[fit.life],
            "one per refresh" if fit.pulls else "none",
            f"{fit.creators:,}",
            f"{fit.comfortable:,}",
            f"{fit.without_accounts_limit:,}",
        ]
        for fit in fits(renew_at=RENEW_AT)
    ]


def test_the_page_says_what_the_renewal_fraction_trades() -> None:
    """Requests spent against hours of outage, for tokens of a day at the first level."""
    usable = usable_rate(per_second=10, per_minute=600)

    assert table_under("## What the renewal fraction trades") == [
        [
            f"{trade.renew_at:.2f}",
            f"{trade.per_day:.2f}",
            f"{trade.survived / 3600:.1f} hours",
            f"{trade.creators:,}",
        ]
        for trade in trades(Load((Crowd(1, DAY),), RENEW_AT), usable=usable)
    ]
