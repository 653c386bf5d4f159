"""A text file as its user wrote it: found, decoded, or refused with the line and byte that don't fit."""

from typing import Protocol

from etils import epath

from expertlens_jax.errors import ExpertLensError


class TextFile(Protocol):
    """What is needed of a file: a path of any kind, or a resource of an installed package."""

    name: str

    def read_bytes(self) -> bytes:
        """Returns all the file's bytes."""


def find_file(path: epath.PathLike) -> epath.Path | None:
    """Returns the file at `path` (local or a bucket's; `~` is expanded), or None where there is none."""
    file = epath.Path(path).expanduser()
    return file if file.is_file() else None


def read_text(file: TextFile, error: type[ExpertLensError]) -> str:
    """Returns the file's text, without a byte-order mark and with its line ends as they are.

    Raises:
      error: the file isn't UTF-8; the message names the first line and byte that aren't.
    """
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        # Positions count from after the byte-order mark, so `object` is what they index, not `data`.
        data, start = problem.object, problem.start
        line = data.count(b"\n", 0, start) + 1
        column = start - (data.rfind(b"\n", 0, start) + 1) + 1
        raise error(
            f"{file}:{line}: byte 0x{data[start]:02x} (byte {column} of the line) is not UTF-8; save the file as UTF-8"
        ) from None
