"""A last layer for other classes than the bundle's, from what the bundle already knows.

A lab sorts into fewer classes than the shipped network: silicone oil and the rest, say. The rest is then every other
class of the bundle together. The logarithm of a sum of exponentials is not linear, but over the embeddings that occur a
linear layer comes close to it; that layer is fitted here, so that fine-tuning starts from what the bundle can do,
folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

__all__ = ["folded_head", "folding"]

F8 = npt.NDArray[np.float64]

#: Embeddings to fit on beside the reference: means of two of them with random weights, which fill the space between.
MIXED = 3000
#: Pull of the weights to zero, against directions that no embedding has.
RIDGE = 1e-5


def folding(known: Sequence[str], wanted: Sequence[str]) -> F8:
    """Which share of each class of the bundle belongs to each class of the lab, float64 (C, W).

    Classes of the same name go together. What is left of the bundle is the rest, and is shared out among the lab's
    classes that the bundle does not know; where there are none it belongs to nobody (row of zeros).

    Examples
    --------
    >>> folding(("oil", "air", "protein"), ("oil", "rest")).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    strange = [w for w, name in enumerate(wanted) if name not in known]
    table = np.zeros((len(known), len(wanted)))
    for c, name in enumerate(known):
        if name in wanted:
            table[c, list(wanted).index(name)] = 1.0
        else:
            table[c, strange] = 1.0 / max(1, len(strange))
    return table


def folded_head(
    kernel: F8, bias: F8, embeddings: F8, *, known: Sequence[str], wanted: Sequence[str], seed: int = 0
) -> tuple[F8, F8]:
    """Kernel and bias of the last layer for other classes.

    Parameters
    ----------
    kernel, bias : ndarray (E, C), (C,)
        Last layer of the bundle, for equal shares of its classes.
    embeddings : ndarray (n, E)
        Embeddings of particles of all its classes.
    known, wanted : sequence of str
        Classes of the bundle, and of the lab. At least one of the lab's has to be known, or be the rest.
    seed : int

    Returns
    -------
    kernel, bias : ndarray (E, W), (W,)
        Whose softmax is as close as a linear layer comes, in relative entropy, to the bundle's folded probabilities for
        equal shares of the lab's classes.
    """
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, len(embeddings), (MIXED, 2))
    share = rng.random((MIXED, 1))
    x = np.concatenate([embeddings, share * embeddings[pairs[:, 0]] + (1 - share) * embeddings[pairs[:, 1]]])
    table = folding(known, wanted)
    # Folded, the rest is as many times as likely as it has classes; the lab's classes count alike.
    target = softmax(x @ kernel + bias, axis=1) @ table / np.maximum(table.sum(axis=0), 1e-9) + 1e-9
    target /= target.sum(axis=1, keepdims=True)
    wide, classes = x.shape[1], len(wanted)

    def loss(flat: F8) -> tuple[float, F8]:
        w, b = flat[: wide * classes].reshape(wide, classes), flat[wide * classes :]
        said = log_softmax(x @ w + b, axis=1)
        error = (np.exp(said) - target) / len(x)
        gradient = np.concatenate([(x.T @ error + 2 * RIDGE * w).ravel(), error.sum(axis=0)])
        return float(-(target * said).sum() / len(x) + RIDGE * (w**2).sum()), gradient

    start = np.zeros(wide * classes + classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400}).x
    return found[: wide * classes].reshape(wide, classes), found[wide * classes :]
