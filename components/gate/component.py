"""The gate step's KFP signature."""

from kfp import dsl


# One unnamed output: KFP's local runner resolves a condition on a named output to false, silently.
@dsl.component(base_image="set-by-target", install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    min_gap: float,
    overrides: str,
    verdict: dsl.Output[dsl.Markdown],
) -> bool:
    """Decide whether the model may be exported.

    Args:
        evaluation: Of the trained model, and of the champion where there is one.
        min_gap: The lowest GAP@20 that is blessed.
        overrides: JSON object of further parameters, by section; evaluation.champion_margin.
        verdict: Why, in words; its metadata hold `blessed` and `reason`.

    Returns:
        Whether the export step runs.
    """
    from components.gate.step import run_gate
    from trainer.config import run_config
    from trainer.errors import reported

    with reported():
        config = run_config(overrides)
        blessed, reason = run_gate(evaluation.path, min_gap, config, verdict.path)
    verdict.metadata.update({"blessed": blessed, "reason": reason})
    return blessed
