"""The verdict: is a model good enough to be exported?"""

from __future__ import annotations

from pathlib import Path

from components.gate.verdict import verdict
from trainer.config import Config
from trainer.files import atomic_file, read_json
from trainer.progress import say


def run_gate(evaluation: str, min_gap: float, config: Config, output: str) -> tuple[bool, str]:
    """Whether the model is blessed, and why in words.

    Args:
        evaluation: folder of the evaluate step.
        min_gap: the lowest GAP that is blessed.
        config: `evaluation.champion_margin` and `champion_videos` are used.
        output: Markdown file to write.

    Raises:
        InputError: no evaluation there.
    """
    content = read_json(Path(evaluation) / "evaluation.json")
    blessed, reason = verdict(content, min_gap, config.evaluation)
    words = "Blessed" if blessed else "Not blessed"
    with atomic_file(output) as partial:
        partial.write_text(f"**{words}**: {reason}.\n", encoding="utf-8")
    say("gate", f"{words.lower()}: {reason}")
    return blessed, reason
