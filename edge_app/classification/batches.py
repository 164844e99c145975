"""How many crops go into each call of the interpreter."""

__all__ = ["batch_sizes"]


def batch_sizes(n: int, largest: int) -> list[tuple[int, int]]:
    """Split n crops into (crops, batch) pairs, batches being powers of two up to ``largest``.

    A batch is padded where that wastes at most a quarter of it, as each call has a fixed cost.

    Examples
    --------
    >>> batch_sizes(43, 64), batch_sizes(60, 64), batch_sizes(130, 64)
    ([(32, 32), (8, 8), (3, 4)], [(60, 64)], [(64, 64), (64, 64), (2, 2)])
    """
    out = []
    while n > 0:
        above = min(largest, 1 << (n - 1).bit_length())
        if n >= above or above - n <= above // 4:
            out.append((min(n, above), above))
        else:
            out.append((above // 2, above // 2))
        n -= out[-1][0]
    return out
