"""The notebook beside the database: it reads a creator's account data as the dashboards' role, and draws it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import make_url

from tests.conftest import DASHBOARD_ROLE
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox

ROOT: Final = Path(__file__).parents[2]
NOTEBOOK: Final = ROOT / "deploy/notebook/account-data.ipynb"
JUPYTER: Final = ROOT / "build/notebook/bin/jupyter-execute"
SCOPES: Final = (
    "user.info.basic",
    "user.info.username",
    "user.info.profile",
    "user.info.stats",
    "user.account.type",
    "user.insights",
    "video.list",
    "video.insights",
)


def test_the_notebook_is_kept_without_results() -> None:
    """Nobody's figures get into the repository with it."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]

    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.night
@pytest.mark.timeout(400)
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_the_notebook_draws_what_was_pulled(new_world: Callable[..., World], tmp_path: Path) -> None:
    """Jupyter runs every cell by SQL on the views, as the role that sees nothing else; a picture comes of it."""
    if not JUPYTER.exists():
        pytest.skip("Jupyter is not in build/notebook: `make notebook` fetches it")
    with start_sandbox(SandboxOptions(scopes=SCOPES, seed=7)) as sandbox:
        world = new_world(TIKTOK_BASE_URL=sandbox.url, TIKTOK_AUTHORIZE_URL=sandbox.authorize_url)
        world.sandbox = sandbox
        first, other = world.creators(2, scope=",".join(SCOPES))
        for grant in (first, other):
            sandbox.set_account(grant.creator_id, videos=90, video_seconds=15)
            for _ in range(2):  # on two days, so that days stand
                world.sql("UPDATE account_days SET read_at = read_at - 86400000")
                world.services.store.request_pull(grant.creator_id)
                assert world.services.puller.pull(grant.grant_id).kind == "pulled"
        profile = world.services.store.profile(other.creator_id)
        assert profile is not None
    address = make_url(world.environ["EVERTOKEN_DATABASE_URL"]).set(username=DASHBOARD_ROLE, drivername="postgresql")
    picture = tmp_path / "account.png"
    done = subprocess.run(
        [JUPYTER, "--inplace", shutil.copy(NOTEBOOK, tmp_path / "done.ipynb")],
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "DASHBOARD_URL": address.render_as_string(hide_password=False),
            "CREATOR": other.creator_id,
            "PICTURE": str(picture),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    outputs = json.loads((tmp_path / "done.ipynb").read_text(encoding="utf-8"))["cells"][-1]["outputs"]
    said = "".join(text for output in outputs for text in output["data"]["text/plain"])
    assert f"{other.creator_id}: 5" in said
    assert f" {profile.followers_count} followers, 8 videos" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    if kept := os.environ.get("KEEP_PICTURE"):
        shutil.copy(picture, kept)
