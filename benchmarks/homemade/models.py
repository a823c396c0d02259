"""The one table of the home-made worker."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel


class Creator(SQLModel, table=True):
    """A creator and the newest tokens."""

    id: int | None = Field(default=None, primary_key=True)
    open_id: str = Field(unique=True)
    access_token: str
    refresh_token: str
    scope: str
    expires_at: datetime = Field(index=True)
    refresh_expires_at: datetime
