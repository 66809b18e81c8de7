"""What a data set looks like, and what is wrong with it. Beam brings it about in `components`."""

from trainer.statistics.artifact import Statistics, read_statistics
from trainer.statistics.feature_statistics import FeatureStatistics

__all__ = ["FeatureStatistics", "Statistics", "read_statistics"]
