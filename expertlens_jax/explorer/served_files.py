"""Files that a server may give away: those listed when it starts, and none that a request names."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Mapping

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
OTHER_TYPE = "text/plain; charset=utf-8"


@dataclasses.dataclass(frozen=True)
class ServedFile:
    """A file as it was when it was listed."""

    path: pathlib.Path
    identity: tuple[int, int]
    """Device and inode: what stands at the path later is given away only if it is the same file."""

    @property
    def media_type(self) -> str:
        """By the name's ending."""
        return MEDIA_TYPES.get(self.path.suffix, OTHER_TYPE)

    def read(self) -> bytes | None:
        """Return what is in it; None if it is gone, or another file stands there now."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        with open(descriptor, "rb") as file:
            return file.read() if _identity(os.fstat(descriptor)) == self.identity else None


def list_files(folder: pathlib.Path) -> Mapping[str, ServedFile]:
    """Return a folder's files by their path in it, with slashes between; links, and what isn't a plain file, left out.

    A request's path is looked up here and nowhere else, so none can name a file that isn't listed.
    """
    listed = {}
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = pathlib.Path(parent, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                listed[path.relative_to(folder).as_posix()] = ServedFile(path, _identity(status))
    return listed


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
