"""Flower's shipped configuration leaves nothing to debug: neither traces on pages nor settings in the log."""

from __future__ import annotations

import logging
import runpy

import pytest

from tests.support.daemon import PROJECT


def test_debugging_is_off_and_settings_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes before the environment, and the logger that prints Flower's settings at DEBUG is shut."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "operator:one")
    monkeypatch.setenv("FLOWER_DEBUG", "true")
    logger = logging.getLogger("flower.command")
    before = logger.level
    try:
        options = runpy.run_path(str(PROJECT / "worker" / "flowerconfig.py"))

        assert options["debug"] is False
        assert not logger.isEnabledFor(logging.DEBUG)
    finally:
        logger.setLevel(before)
