"""GAP@20, mAP, Hit@1, PERR and what explains them: exact over a whole data set, NumPy only.

Definitions: Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video Classification Benchmark",
arXiv 1609.08675, section 5, and google/youtube-8m's `eval_util`. `evaluate` takes arrays;
`MetricsAccumulator` takes batches and merges workers.
"""

from trainer.metrics.accumulator import MetricsAccumulator, Scores, evaluate
from trainer.metrics.ranking import TOP_K, average_precision, dense_scores, top_k

__all__ = [
    "TOP_K",
    "MetricsAccumulator",
    "Scores",
    "average_precision",
    "dense_scores",
    "evaluate",
    "top_k",
]
