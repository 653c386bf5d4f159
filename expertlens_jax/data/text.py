"""A text file as its user wrote it: found, decoded, or refused with the line and byte that don't fit."""

import codecs
import dataclasses
import lzma
import warnings
from typing import Protocol

from etils import epath

from expertlens_jax.errors import ExpertLensError, ExpertLensWarning

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_REMEDY = "save the file as UTF-8 (Excel: 'CSV UTF-8'; Python: path.write_text(path.read_text('{}'), 'utf-8'))"


class TextFile(Protocol):
    """What is needed of a file: a path of any kind, or a resource of an installed package."""

    name: str

    def read_bytes(self) -> bytes:
        """Return all the file's bytes."""


@dataclasses.dataclass(frozen=True)
class PackedFile:
    """A text file that is kept as `.xz`, under the name that it has unpacked."""

    name: str
    packed: TextFile

    def read_bytes(self) -> bytes:
        """Return all the unpacked bytes."""
        return lzma.decompress(self.packed.read_bytes())

    def __str__(self) -> str:
        return f"{self.packed}"


def find_file(path: epath.PathLike) -> epath.Path | None:
    """Return the file at `path` (local or a bucket's; `~` is expanded), or None where there is none."""
    file = epath.Path(path).expanduser()
    return file if file.is_file() else None


def tell_shadowed_file(name: str, what: str) -> None:
    """Warn if there is a file here of the same name as a known data set, which is read instead of it.

    Args:
      name: of the data set, as it was given.
      what: it is, as "the sentence set that ships with the package".
    """
    if find_file(name) is not None:
        warnings.warn(
            f"{name!r} is {what}, which is read; there is a file of that name here too. Write './{name}' for the file.",
            ExpertLensWarning,
            stacklevel=4,
        )


def read_text(file: TextFile, error: type[ExpertLensError]) -> str:
    """Return the file's text, without a byte-order mark and with its line ends as they are.

    Raises:
      error: the file isn't UTF-8; the message names the encoding that it seems to have, or the first line and byte
        that don't fit, and the remedy.
    """
    data = file.read_bytes()
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise error(f"{file}: the file is {name}, as its first bytes say; {_REMEDY.format(name.lower())}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        # Positions count from after the byte-order mark, so `object` is what they index, not `data`.
        data, start = problem.object, problem.start
        line = data.count(b"\n", 0, start) + 1
        column = start - (data.rfind(b"\n", 0, start) + 1) + 1
        meant = data[start : start + 1].decode("cp1252", errors="ignore")
        guess = f" (in Windows-1252, which Excel's plain 'CSV' has in western Europe, it is {meant!r})" if meant else ""
        raise error(
            f"{file}:{line}: byte 0x{data[start]:02x} (byte {column} of the line) is not UTF-8{guess}; "
            + _REMEDY.format("cp1252" if meant else "THE ENCODING IT HAS")
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(
            f"{file}:{line}: the file holds zero bytes, as UTF-16 without a byte-order mark does; "
            + _REMEDY.format("utf-16-le")
        )
    return text
