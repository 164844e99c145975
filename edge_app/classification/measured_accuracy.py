"""How well a network did when it was made, by size: what a record keeps of its bundle, for the report."""

from collections.abc import Mapping
from typing import Any

__all__ = ["measured_accuracy"]


def measured_accuracy(metrics: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a bundle's figures that says how far its classes can be believed.

    Parameters
    ----------
    metrics, training
        Of ``bundle.json``.

    Returns
    -------
    dict
        ``taught_on`` (source of the training pictures) and ``macro_f1_by_size_um``: name of a set of pictures ->
        size range -> macro-F1; sets without sizes are left out.

    Examples
    --------
    >>> measured_accuracy({"test": {"by_size_um": {"5-8": {"macro_f1": 0.67}}}}, {"source": "simulator"})
    {'taught_on': 'simulator', 'macro_f1_by_size_um': {'test': {'5-8': 0.67}}}
    """
    found: dict[str, dict[str, float]] = {}
    for name, figures in metrics.items():
        by_size = figures.get("by_size_um") if isinstance(figures, Mapping) else None
        if isinstance(by_size, Mapping):
            scores = {
                str(size): float(row["macro_f1"])
                for size, row in by_size.items()
                if isinstance(row, Mapping) and isinstance(row.get("macro_f1"), (int, float))
            }
            if scores:
                found[str(name)] = scores
    return {"taught_on": str(training.get("source") or ""), "macro_f1_by_size_um": found}
