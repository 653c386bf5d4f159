"""What a file for another program can't carry of a steering, told in one way."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.errors import SelectionError

if TYPE_CHECKING:
    from expertlens_jax.models.steering import Steering


def refuse_units(carrier: str, rows: pd.DataFrame, count: int, why: str) -> None:
    """Refuse a steering some units of which can't be written.

    Args:
      carrier: what can't carry them, as the start of a sentence: "a control vector".
      rows: those units of the steering's table; nothing is refused if there are none.
      count: of all its units.
      why: as "are scaled".

    Raises:
      SelectionError: there are such units; the message names the first of them.
    """
    if len(rows):
        shown = ", ".join(_named(row) for row in each_row(rows.head(3)))
        raise SelectionError(
            f"{carrier} can't carry this steering: {len(rows)} of its {count} units {why}: {shown}"
            f"{' ...' if len(rows) > 3 else ''}. steering.to_torch(hf_model) carries any."
        )


def _named(row: Any) -> str:
    """Return a unit's address; of an expert's, with the expert before the site's channel."""
    of_expert = f" {row.expert}" if getattr(row, "expert", -1) >= 0 else ""
    return f"L{row.layer} {row.site}{of_expert} {row.channel}"


def refuse_conditions(carrier: str, steering: "Steering") -> None:
    """Refuse a steering that applies at some tokens only, for a program that adds its vectors at every token.

    Args:
      carrier: as of `refuse_units`.
      steering: any.

    Raises:
      SelectionError: it has a `when`; the message says which.
    """
    whens = [when for _, when in steering.stages if when is not None]
    if whens:
        raise SelectionError(
            f"{carrier} can't carry this steering: it applies only {'; or '.join(map(str, whens))}, and what "
            f"{carrier} says is done at every token. steering.to_torch(hf_model) carries all conditions but words."
        )
