"""The verdict: is a model good enough to be exported?"""

from __future__ import annotations

from trainer.files import atomic_file
from trainer.progress import say


def run_gate(gap: float, min_gap: float, verdict: str) -> tuple[bool, str]:
    """Whether the model is blessed, and why in words.

    Args:
        gap: GAP@20 of the trained model on the validate split.
        min_gap: the lowest that is blessed.
        verdict: Markdown file to write.
    """
    blessed = gap >= min_gap
    relation = "reaches" if blessed else "is below"
    reason = f"GAP@20 {gap:.4f} {relation} the required {min_gap:.4f}"
    words = "Blessed" if blessed else "Not blessed"
    with atomic_file(verdict) as partial:
        partial.write_text(f"**{words}**: {reason}.\n", encoding="utf-8")
    say("gate", f"{words.lower()}: {reason}")
    return blessed, reason
