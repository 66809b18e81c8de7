"""The gate step's KFP signature."""

from kfp import dsl


# One unnamed output: KFP's local runner resolves a condition on a named output to false, silently.
@dsl.component(base_image="set-by-target", install_kfp_package=False)
def gate(gap: float, min_gap: float, verdict: dsl.Output[dsl.Markdown]) -> bool:
    """Decide whether the model may be exported.

    Args:
        gap: GAP@20 of the trained model.
        min_gap: The lowest GAP@20 that is blessed.
        verdict: Why, in words; its metadata hold `blessed` and `reason`.

    Returns:
        Whether the export step runs.
    """
    from components.gate.step import run_gate
    from trainer.errors import reported

    with reported():
        blessed, reason = run_gate(gap, min_gap, verdict.path)
    verdict.metadata.update({"blessed": blessed, "reason": reason})
    return blessed
