"""The keyring's file and how the commands change it: it is replaced as a whole, and no key is ever lost."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Final

from worker.cli.whole_file import refuse_dash, unwritten
from worker.errors import ConfigurationError, UsageError
from worker.pasted import read_file
from worker.vault.keyring_text import KeyringText

OWNER_ONLY: Final = 0o600
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def read(path: Path) -> KeyringText:
    """Read a keyring's file.

    Raises:
        ConfigurationError: it cannot be read, or is no keyring.
    """
    return KeyringText.read(read_file(path, str(path), lines=True))


def write_new(path: Path, text: str, mode: int = OWNER_ONLY, *, what: str = "a keyring") -> None:
    """Write a new file and sync it.

    Raises:
        UsageError: it exists, cannot be written, or is `-`.
    """
    refuse_dash(path)
    try:
        descriptor = os.open(path, NEW, OWNER_ONLY)
    except FileExistsError:
        raise UsageError(
            f"{path} exists; {what} is never overwritten, since nothing else opens what it seals"
        ) from None
    except OSError as error:
        raise UsageError(unwritten(path, error)) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text + "\n")
        file.flush()
        os.fsync(descriptor)


def write_for_readers(path: Path, text: str) -> None:
    """Write a reader's keyring into a new file, or over an older one that was made from the same keyring.

    Raises:
        UsageError: the file holds anything else, or cannot be written.
    """
    if not path.exists():
        write_new(path, text)
        return
    try:
        held = read(path)
    except ConfigurationError:
        held = None
    if held is None or not held.for_readers:
        raise UsageError(f"{path} exists and is not a reader's keyring; it was left as it is")
    if held.fingerprint != (made := KeyringText.read(text)).fingerprint:
        raise UsageError(f"{path} is a reader's keyring that was made from another keyring; it was left as it is")
    if held != made:
        replace(path, text)


def replace(path: Path, text: str) -> None:
    """Replace a file atomically and keep its mode; a reader gets either the old text or the new one.

    Raises:
        UsageError: the folder cannot be written.
    """
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    write_new(draft, text, target.stat().st_mode & 0o777)
    try:
        draft.rename(target)
        _sync(target.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be replaced ({error.strerror})") from None


def keep_aside(path: Path, key_id: int) -> Path:
    """Write one key of a keyring into a new file beside it, and return that file.

    Raises:
        UsageError: the file exists or cannot be written.
    """
    aside = path.resolve().with_name(f"{path.name}.retired-{key_id}")
    write_new(aside, json.dumps({"keys": {str(key_id): read(path).keys[key_id]}}))
    return aside


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
