"""How a model's loss fell."""

from __future__ import annotations

import pandas as pd

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, Figure, colours, drawn


@drawn
def plot_training(training: pd.DataFrame, evaluation: pd.DataFrame) -> Figure:
    """Draw loss against tokens read (both axes' meaning: nats a token; log tokens), with the learning rate beneath.

    Args:
      training: a row per logged step: tokens, loss (of one batch), rate.
      evaluation: a row per evaluated step and corpus: tokens, corpus, loss (held out).

    >>> import expertlens_jax as el, pandas as pd
    >>> training = pd.DataFrame({"tokens": [1e3, 1e4, 1e5], "loss": [9.0, 6.0, 4.0], "rate": [0.1, 1.0, 0.2]})
    >>> evaluation = pd.DataFrame({"tokens": [1e4, 1e5], "loss": [6.1, 4.2], "corpus": "novels"})
    >>> figure = el.plot.training(training, evaluation)
    >>> figure.axes[0].texts[0].get_text().strip()
    'novels 4.20'
    """
    require(training, "tokens", "loss", "rate")
    require(evaluation, "tokens", "corpus", "loss")
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    loss.plot(training["tokens"], training["loss"], color=FAINT, linewidth=0.5, alpha=0.6, label="one batch")
    shade = colours(sorted(set(evaluation["corpus"])))
    for corpus, rows in evaluation[evaluation["tokens"] > 0].groupby("corpus"):
        loss.plot(rows["tokens"], rows["loss"], color=shade[corpus], marker="o", markersize=2.5)
        loss.annotate(
            f" {corpus} {rows['loss'].iloc[-1]:.2f}",
            (rows["tokens"].iloc[-1], rows["loss"].iloc[-1]),
            color=shade[corpus],
            va="center",
            fontsize=7,
            annotation_clip=False,
        )
    loss.set_xscale("log")
    loss.set_ylabel("Loss, nats a token\n(lines: held-out text)")
    rate.plot(training["tokens"], training["rate"], color=FAINT)
    rate.set_ylabel("Learning\nrate")
    rate.set_xlabel("Tokens read")
    return figure
