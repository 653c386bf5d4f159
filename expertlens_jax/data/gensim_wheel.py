"""Takes SimLex-999 out of a wheel of gensim that isn't installed, for machines that reach a package registry only.

pip download --no-deps --only-binary=:all: --python-version 3.13 --dest DIR gensim
python -m expertlens_jax.data.gensim_wheel DIR

gensim has no wheel for Python 3.14, and its rating files need none: a wheel is a zip file.
"""

import hashlib
import pathlib
import sys
import zipfile

from expertlens_jax.cache_directory import cache_root
from expertlens_jax.data.known_ratings import KNOWN
from expertlens_jax.errors import ExpertLensError, RatingsError


def unpack(folder: pathlib.Path) -> pathlib.Path:
    """Write gensim's copy of SimLex-999 to where `load_ratings` looks for it.

    Args:
      folder: where one wheel of gensim lies.

    Returns:
      The file, in `ratings` of the cache directory.

    Raises:
      RatingsError: there is no wheel, or its file isn't the one that is known.
    """
    known = KNOWN["simlex999"]
    wheels = sorted(pathlib.Path(folder).glob("gensim-*.whl"))
    if not wheels:
        raise RatingsError(f"{folder} holds no wheel of gensim; give the directory that pip download wrote it to.")
    name = f"gensim/test/test_data/{known.gensim_file}"
    with zipfile.ZipFile(wheels[-1]) as wheel:
        data = wheel.read(name) if name in wheel.namelist() else b""
    found = hashlib.sha256(data).hexdigest() if data else "no such file"
    if found != known.gensim_sha256:
        raise RatingsError(
            f"{wheels[-1]}: the SHA-256 of {name} is {found}; wanted is {known.gensim_sha256}. Give gensim 4's."
        )
    file = cache_root() / "ratings" / known.gensim_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


if __name__ == "__main__":
    try:
        print(f"SimLex-999 is in {unpack(pathlib.Path(sys.argv[1]))}.\n  Cite: {KNOWN['simlex999'].citation}.")
    except ExpertLensError as error:
        sys.exit(f"Error: {error}")
