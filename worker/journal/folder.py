"""The journal's folder: its rights, its free space, its file system, and the subfolder for what is set aside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.errors import JournalError

SET_ASIDE: Final = "set-aside"
OWNER: Final = "namespace"
"""File that names the namespace whose answers the folder holds; an installation without a namespace has none."""
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
LONGEST_NAME: Final = 40
MEMORY: Final = frozenset({"tmpfs", "ramfs"})
CONTAINER_LAYERS: Final = frozenset({"overlay", "aufs"})
MOUNTS: Final = Path("/proc/self/mounts")


def fail(doing: str, path: Path, error: OSError) -> JournalError:
    """Return the error for a failed system call."""
    return JournalError(f"{doing} {path}: {error.strerror or type(error).__name__}")


class JournalFolder:
    """A folder that only its owner may enter, with the checks that the journal needs."""

    def __init__(self, path: Path, namespace: str | None = None) -> None:
        self.path = path.absolute()
        self._namespace = namespace
        self._found_open: str | None = None

    def prepare(self) -> None:
        """Make the folder if it is missing, check it as `check` and `refuse_others` do, and mark it as ours.

        Raises:
            JournalError: its text says what is wrong and what to do.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            pass
        except OSError as error:
            raise fail("the journal's folder cannot be made:", self.path, error) from None
        self.check()
        if self.refuse_others() is None and self._namespace is not None:
            self._mark(self._namespace)

    def probe(self) -> bool:
        """Refuse what `prepare` would refuse, and change nothing: no folder is made, marked or closed to others.

        Returns:
            False if the folder is not there yet, and can be made.

        Raises:
            JournalError: its text says what is wrong and what to do.
        """
        self.refuse_others()
        if not os.path.lexists(self.path):
            above = next(parent for parent in self.path.parents if parent.exists())
            if not os.access(above, os.W_OK | os.X_OK):
                raise JournalError(f"the journal's folder {self.path} cannot be made: {above} cannot be written")
            return False
        self.check(close=False)
        return True

    def refuse_others(self) -> str | None:
        """Refuse a folder of another namespace, or of none, whose answers would be taken for ours.

        Returns:
            The namespace that the folder is marked with; None if there is no mark.

        Raises:
            JournalError: it is another's; the text says whose.
        """
        try:
            marked = (self.path / OWNER).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            marked = ""
        except OSError as error:
            raise fail("the journal's folder cannot be read:", self.path, error) from None
        whose = f"the namespace {marked[:LONGEST_NAME]!a}" if marked else "an installation without a namespace"
        holds_answers = not marked and (any(self.files(".segment")) or bool(self.set_aside_count()))
        if marked != (self._namespace or "") and (marked or holds_answers):
            raise JournalError(
                f"the journal's folder {self.path} belongs to {whose}, and this process has "
                f"{'no namespace' if self._namespace is None else f'the namespace {self._namespace!r}'}: give each "
                f"installation its own EVERTOKEN_JOURNAL_DIR{self._way_out() if marked else ''}"
            )
        return marked or None

    def _way_out(self) -> str:
        """Say when the mark may be removed."""
        return (
            f"; if that namespace was a mistake, and neither a file `*.segment` nor anything in `{SET_ASIDE}/` is in "
            f"the folder, remove its file `{OWNER}`"
        )

    def _mark(self, namespace: str) -> None:
        """Mark the folder as a namespace's; of two namespaces that come at once, the second is refused.

        Raises:
            JournalError: it cannot be marked, or another was first.
        """
        unfinished = self.path / f"{OWNER}.{os.getpid()}.unfinished"
        try:
            unfinished.write_text(f"{namespace}\n", encoding="utf-8")
            try:
                os.link(unfinished, self.path / OWNER)
            except FileExistsError:
                pass
            finally:
                unfinished.unlink(missing_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise fail("the journal's folder cannot be marked as ours:", self.path, error) from None
        self.refuse_others()

    def check(self, *, close: bool = True) -> None:
        """Refuse a folder that is missing, a link, another user's or not writable; close one that is open to others.

        Kubernetes opens every folder of a volume to the group of `fsGroup` when it mounts the volume.

        Args:
            close: False to leave an open one open; `warnings` reports it either way.

        Raises:
            JournalError: its text says what is wrong and what to do.
        """
        try:
            status = self.path.lstat()
        except OSError as error:
            raise fail("the journal's folder cannot be used:", self.path, error) from None
        if not stat.S_ISDIR(status.st_mode):
            raise JournalError(f"the journal's folder {self.path} is a link or a file; name a folder")
        if status.st_uid != os.geteuid():
            raise JournalError(
                f"the journal's folder {self.path} belongs to user {status.st_uid} and this process runs as "
                f"{os.geteuid()}; run as its owner or `chown` it"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 and close:
            self._close_to_others(mode)
        elif mode & 0o077:
            self._found_open = f"is open to others (mode {mode:04o}); a worker closes it to them when it starts"
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise JournalError(f"the journal's folder {self.path} cannot be written: read-only, or its mode forbids it")

    def _close_to_others(self, mode: int) -> None:
        """Remove the rights of group and others from this folder, which is ours; `warnings` reports it."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, FOLDER_MODE)
                closed = not stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077
            finally:
                os.close(descriptor)
        except OSError:
            closed = False
        if not closed:
            raise JournalError(
                f"others may enter the journal's folder, and it cannot be closed to them; run `chmod 700 {self.path}`"
            )
        self._found_open = (
            f"was open to others (mode {mode:04o}) and was closed to them; does something open it at each start, such "
            "as fsGroup of Kubernetes?"
        )

    def check_space(self, floor_bytes: int) -> None:
        """Refuse a file system that is nearly full.

        Args:
            floor_bytes: least free bytes.

        Raises:
            JournalError: too few bytes or no file entries are free.
        """
        try:
            free = os.statvfs(self.path)
        except OSError as error:
            raise fail("the journal's folder cannot be used:", self.path, error) from None
        if free.f_bavail * free.f_frsize < floor_bytes:
            mebibytes = free.f_bavail * free.f_frsize // 2**20
            raise JournalError(
                f"the disk of the journal {self.path} is nearly full: {mebibytes} MiB are free and "
                f"{floor_bytes // 2**20} MiB are needed; free some space"
            )
        if free.f_files and not free.f_favail:
            raise JournalError(f"the file system of the journal {self.path} can make no more files; remove some")

    def file_system(self) -> str | None:
        """Return the type of the file system under the folder, such as `ext4`; None if it is not known."""
        try:
            lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        where = self.path.resolve()
        best: tuple[int, str] | None = None
        for line in lines:
            _, point, kind, *_ = line.split(" ")
            mounted = Path(point.replace("\\040", " "))
            # Of two mounts at the same depth the later one covers the other.
            if where.is_relative_to(mounted) and (best is None or len(mounted.parts) >= best[0]):
                best = len(mounted.parts), kind
        return best[1] if best else None

    def warnings(self) -> list[str]:
        """Return what weakens the journal's safety without stopping it, in sentences for a person."""
        found, kind = [], self.file_system()
        if self._found_open is not None:
            found.append(f"the journal {self.path} {self._found_open}")
        if kind in MEMORY:
            found.append(f"the journal {self.path} is in memory ({kind}): it does not survive a restart")
        if kind in CONTAINER_LAYERS:
            found.append(f"the journal {self.path} is in a container's own layer and is removed with the container")
        count = self.set_aside_count()
        if count:
            found.append(
                f"damaged or misfit records in {self.path / SET_ASIDE}: {count}; `grants aside` lists them, and "
                "`grants place` stores a pair under its owner (docs/runbook/grant.misfit.md)"
            )
        return found

    def files(self, suffix: str) -> Iterator[Path]:
        """Yield the folder's entries with this suffix by name; none if the folder is missing.

        Raises:
            JournalError: the folder cannot be read.
        """
        try:
            names = sorted(entry for entry in os.listdir(self.path) if entry.endswith(suffix))  # noqa: PTH208 - names alone are wanted
        except FileNotFoundError:
            return
        except OSError as error:
            raise fail("the journal's folder cannot be read:", self.path, error) from None
        for name in names:
            yield self.path / name

    def set_aside(self, name: str, content: bytes) -> bool:
        """Keep bytes under `set-aside/`; they are on disk when this returns.

        Args:
            name: the file's name.
            content: the bytes.

        Returns:
            False if they were kept already.

        Raises:
            JournalError: they could not be kept.
        """
        room = self.path / SET_ASIDE
        kept = room / name
        unfinished = kept.with_name(kept.name + ".unfinished")
        try:
            room.mkdir(mode=FOLDER_MODE, exist_ok=True)
            if kept.exists() and kept.read_bytes() == content:
                return False
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(unfinished, flags, FILE_MODE), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(kept)
            sync_folder(room)
            sync_folder(self.path)
        except OSError as error:
            raise fail("a journal record could not be set aside as", kept, error) from None
        return True

    def take_aside(self, path: Path) -> None:
        """Move a whole file of this folder under `set-aside/`.

        Raises:
            JournalError: it could not be moved.
        """
        room = self.path / SET_ASIDE
        try:
            room.mkdir(mode=FOLDER_MODE, exist_ok=True)
            path.rename(room / path.name)
            sync_folder(room)
            sync_folder(self.path)
        except OSError as error:
            raise fail("a journal file could not be set aside:", path, error) from None

    def set_aside_count(self) -> int:
        """Return how many files are under `set-aside/`."""
        try:
            return len(os.listdir(self.path / SET_ASIDE))  # noqa: PTH208 - a count alone is wanted
        except OSError:
            return 0


def sync_folder(path: Path) -> None:
    """Sync a folder's entries to disk.

    Raises:
        OSError: the system refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
