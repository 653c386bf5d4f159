"""Files of data that a page loads on demand: scripts, since a browser refuses to fetch from the file system."""

import base64
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

GIVE = "EXPERTLENS.give"
_TYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4"}


def write_chunk(site: epath.Path, name: str, data: Any) -> None:
    """Write `data/NAME.js`, which hands its data to the page when the page loads it as a script."""
    path = site / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chunk_script(name, data))


def chunk_script(name: str, data: Any) -> str:
    """Return the script that hands data to the page."""
    return f"{GIVE}({json.dumps(name)},{json.dumps(data, separators=(',', ':'), allow_nan=False)});\n"


def rows_of(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return a table's rows, each by its columns' names; numbers that are missing are None."""
    return [] if table is None else json.loads(str(table.to_json(orient="records", double_precision=10)))


def packed(array: np.ndarray) -> dict[str, Any]:
    """Return non-negative integers as text, in the smallest type that holds them: `{type, shape, data}`, base64."""
    array = np.asarray(array)
    largest = int(array.max(initial=0))
    if array.min(initial=0) < 0 or largest > np.iinfo(np.uint32).max:
        raise ValueError(f"integers from {array.min()} to {largest} don't fit into uint32")
    kind = next(name for name in _TYPES if largest <= np.iinfo(name).max)
    data = base64.b64encode(array.astype(f"<{_TYPES[kind]}").tobytes()).decode()
    return {"type": kind, "shape": list(array.shape), "data": data}


def exact(values: Iterable[Any]) -> list[float | None]:
    """Return float32 in the fewest digits that tell each from its neighbours; None for NaN."""
    return [float(str(each)) if np.isfinite(each) else None for each in np.asarray(list(values), np.float32)]


def rounded(values: Iterable[Any], digits: int = 4) -> list[float | None]:
    """Return numbers with so many significant digits; None for NaN."""
    return [float(f"{each:.{digits}g}") if math.isfinite(each) else None for each in map(float, values)]
