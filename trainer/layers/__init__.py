"""Layers written with `keras.ops` alone: one public class a file."""

from trainer.layers.context_gating import ContextGating
from trainer.layers.feature_normalization import FeatureNormalization
from trainer.layers.masked_mean import MaskedMean
from trainer.layers.mixture_of_experts import MixtureOfExperts
from trainer.layers.nextvlad import NeXtVLAD

__all__ = [
    "ContextGating",
    "FeatureNormalization",
    "MaskedMean",
    "MixtureOfExperts",
    "NeXtVLAD",
]
