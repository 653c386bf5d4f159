"""A text file as its user wrote it: found, decoded, or refused with the line and byte that don't fit."""

import codecs
import dataclasses
import io
import lzma
import re
import warnings
from typing import Protocol, TextIO

from etils import epath

from expertlens_jax.errors import ExpertLensError, ExpertLensWarning

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SEVERAL_BYTES = re.compile(
    b"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)  # a character of UTF-8 beyond ASCII
_CHUNK = 1 << 20
_REMEDY = "save the file as UTF-8 (Excel: 'CSV UTF-8'; Python: path.write_text(path.read_text('{}'), 'utf-8'))"


class TextFile(Protocol):
    """What is needed of a file: a path of any kind, or a resource of an installed package."""

    @property
    def name(self) -> str:
        """Its name, without the folder."""
        ...

    def read_bytes(self) -> bytes:
        """Return all the file's bytes."""
        ...


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


@dataclasses.dataclass(frozen=True)
class Text:
    """A file's bytes, and how they are read: a long file is decoded piece by piece, and never held twice.

    Attributes:
      data: the bytes, with the byte-order mark.
      encoding: in which Python decodes them; the mark is no part of the text.
      remark: what the user should know of it; "" where it is UTF-8.
    """

    data: bytes
    encoding: str
    remark: str = ""

    def open(self, newline: str | None = "") -> TextIO:
        """Return a reader of the text; line ends stay as they are, and `newline` says what ends a line."""
        return io.TextIOWrapper(io.BytesIO(self.data), self.encoding, newline=newline)

    def whole(self) -> str:
        """Return the text."""
        return self.data.decode(self.encoding)


def decode(file: TextFile, error: type[ExpertLensError], *, encoding: str | None = None) -> Text:
    """Find out how a file is encoded: UTF-8, with a byte-order mark or none; UTF-16 with one; else Windows-1252.

    Windows-1252 is what Excel's plain "CSV" has in western Europe. It is taken only for a file without any character
    of UTF-8 beyond ASCII, in which such characters are few: any bytes can be read in it, also those of a damaged file
    and of other alphabets.

    Args:
      file: whose bytes are read.
      error: what is raised.
      encoding: as Python calls it, if the user says it.

    Raises:
      error: an unknown encoding, or bytes that don't fit; the message names the line and byte, and the remedy.
    """
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise error(f"no encoding {encoding!r}; Python knows utf-8, utf-16, cp1252, shift_jis and more") from None
        text = Text(file.read_bytes(), encoding)
        _check_decodes(file, text, error)
        return text
    data = file.read_bytes()
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            if name != "UTF-16":
                raise error(f"{file}: the file is {name}, as its first bytes say; {_REMEDY.format(name.lower())}")
            text = Text(data, "utf-16", f"{file}: the file is UTF-16, as its first bytes say, and was read as such")
            _check_decodes(file, text, error)
            return text
    text = Text(data, "utf-8-sig")
    problem = _first_problem(text)
    if b"\0" in data or (problem and (data.startswith(codecs.BOM_UTF8) or not _may_be_windows(data))):
        read_text(file, error)  # which tells the line
    if problem is None:
        return text
    text = Text(data, "cp1252")
    start = problem.start
    line_start, line_end = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", start)
    shown = data[line_start : line_end if line_end >= 0 else len(data)].decode("cp1252").strip()
    line = data.count(b"\n", 0, start) + 1
    return dataclasses.replace(
        text,
        remark=f"{file}: the file isn't UTF-8 (line {line}, byte 0x{data[start]:02x}) and was read as Windows-1252, so "
        f"that line {line} is {shown[:80]!r}. If that is wrong, say encoding= (as encoding='cp1250'); to be safe, "
        + _REMEDY.format("cp1252"),
    )


def _first_problem(text: Text) -> UnicodeDecodeError | None:
    """Return the first bytes that can't be decoded (its positions count from the start of the data); else None."""
    decoder = codecs.getincrementaldecoder(text.encoding)()
    try:
        for start in range(0, len(text.data), _CHUNK):
            decoder.decode(text.data[start : start + _CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        try:
            text.data.decode("utf-8" if text.encoding == "utf-8-sig" else text.encoding)
        except UnicodeDecodeError as problem:
            return problem
    return None


def _may_be_windows(data: bytes) -> bool:
    """Return whether bytes that aren't UTF-8 may be Windows-1252: see `decode`."""
    if _SEVERAL_BYTES.search(data):
        return False
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters = sum(map(str.isalpha, text))
    beyond = sum(letter.isalpha() and not letter.isascii() for letter in text)
    return beyond * 3 <= letters


def _check_decodes(file: TextFile, text: Text, error: type[ExpertLensError]) -> None:
    problem = _first_problem(text)
    if problem is not None:
        raise error(
            f"{file}: byte 0x{text.data[problem.start]:02x} (byte {problem.start + 1} of the file) is not "
            f"{text.encoding}: {problem.reason}; say which encoding it has, as encoding='cp1252'"
        )
