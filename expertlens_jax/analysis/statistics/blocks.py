"""Many resamples or permutations at once, but no more than memory holds."""

_CELLS = 2_000_000  # float64 numbers in one block: 16 MB


def in_blocks(total: int, width: int) -> list[int]:
    """Return the sizes of blocks of bounded memory that `total` rows of `width` numbers are split into."""
    size = max(1, _CELLS // max(width, 1))
    return [min(size, total - start) for start in range(0, total, size)]
