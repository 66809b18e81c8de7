"""Whether a model may be exported, and why in words."""

from __future__ import annotations

from typing import Any


def verdict(evaluation: dict[str, Any], min_gap: float, margin: float) -> tuple[bool, str]:
    """Of an evaluation: blessed or not, and the reason.

    Args:
        evaluation: content of `evaluation.json`.
        min_gap: the lowest GAP that is blessed.
        margin: by which GAP has to be above the champion's, if there is one: the whole interval
            of the difference on the same resamples of the videos has to lie above it.
    """
    metric = evaluation["headline"]
    gap = evaluation["metrics"]["model"]["gap"]
    enough = gap >= min_gap
    reached = f"{'reaches' if enough else 'is below'} the required {min_gap:.4f}"
    reason = f"{metric} {gap:.4f} {reached}"
    if "champion" not in evaluation["metrics"]:
        return enough, reason
    champion = evaluation["metrics"]["champion"]["gap"]
    difference = evaluation["differences"]["champion"]
    better = difference["low"] > margin
    by = f"by more than {margin:.4f}" if margin else "beyond chance"
    if difference["high"] < 0:
        words = "is worse than"
    else:
        words = f"is {'' if better else 'not '}better {by} than"
    joint = {(True, False): ", but ", (False, True): ", though it "}.get((enough, better), " and ")
    interval = f"[{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return enough and better, (
        f"{reason}{joint}{words} the champion's {champion:.4f} on the same shards (difference "
        f"{difference['value']:+.4f}, {evaluation['confidence']:.0%} interval {interval} of "
        f"{evaluation['resamples']:,} paired resamples of {evaluation['videos']:,} videos)"
    )
