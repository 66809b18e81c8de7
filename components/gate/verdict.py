"""Whether a model may be exported, and why in words."""

from __future__ import annotations

from typing import Any

from trainer.config import EvaluationConfig

_CONJUNCTIONS = {(True, False): ", but ", (False, True): ", though it "}
"""Between enough and better; " and " where both or neither is so."""


def verdict(
    evaluation: dict[str, Any], min_gap: float, settings: EvaluationConfig
) -> tuple[bool, str]:
    """Of an evaluation: blessed or not, and the reason.

    Args:
        evaluation: content of `evaluation.json`.
        min_gap: the lowest GAP that is blessed.
        settings: `champion_margin`, by which GAP has to be above the champion's, if there is one:
            the whole interval of the difference on the same resamples of the videos has to lie
            above it; and `champion_videos`.
    """
    gap = evaluation["metrics"]["model"]["gap"]
    enough = gap >= min_gap
    found, required = _apart(gap, min_gap)
    reached = f"{'reaches' if enough else 'is below'} the required {required}"
    reason = f"{evaluation['headline']} {found} {reached}"
    if "champion" not in evaluation["metrics"]:
        return enough, reason
    better, words = _beside_champion(evaluation, settings)
    joint = _CONJUNCTIONS.get((enough, better), " and ")
    return enough and better, f"{reason}{joint}{words}"


def _beside_champion(evaluation: dict[str, Any], settings: EvaluationConfig) -> tuple[bool, str]:
    champion = evaluation["metrics"]["champion"]["gap"]
    one = evaluation["differences"]["champion"]
    videos, margin = evaluation["labelled_videos"], settings.champion_margin
    better = one["low"] > margin and videos >= settings.champion_videos
    by = f"by more than {margin:.4f}" if margin else "beyond chance"
    if videos < settings.champion_videos:
        words = f"can not be called better {by} on {videos:,} videos with labels (expected at "
        words += f"least {settings.champion_videos:,}) than"
    elif one["high"] < 0:
        words = "is worse than"
    else:
        words = f"is {'' if better else 'not '}better {by} than"
    unknown = (
        ""
        if evaluation["champion_vocabulary_known"]
        else ("; whether the champion's classes are the data's is not known")
    )
    return better, (
        f"{words} the champion's {champion:.4f} on the same shards (difference "
        f"{one['value']:+.4f}, {100 * evaluation['confidence']:g}% interval [{one['low']:+.4f}, "
        f"{one['high']:+.4f}] of {evaluation['resamples']:,} paired resamples of "
        f"{evaluation['videos']:,} videos{unknown})"
    )


def _apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to see that they are not equal."""
    for digits in (4, 6, 8, 12):
        texts = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if one == other or texts[0] != texts[1]:
            break
    return texts
