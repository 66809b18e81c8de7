"""Layers written with `keras.ops` alone: one public class a file."""

from trainer.layers.batch_normalization import BatchNormalization
from trainer.layers.context_gating import ContextGating
from trainer.layers.dbof import DBoF
from trainer.layers.distilled_mixture import DistilledMixture
from trainer.layers.feature_normalization import FeatureNormalization
from trainer.layers.folded_nextvlad import FoldedNeXtVLAD
from trainer.layers.frame_mask import FrameMask
from trainer.layers.masked_mean import MaskedMean
from trainer.layers.mixture_of_experts import MixtureOfExperts
from trainer.layers.netvlad import NetVLAD
from trainer.layers.nextvlad import NeXtVLAD
from trainer.layers.vertical_attention import VerticalAttention

__all__ = [
    "BatchNormalization",
    "ContextGating",
    "DBoF",
    "DistilledMixture",
    "FeatureNormalization",
    "FoldedNeXtVLAD",
    "FrameMask",
    "MaskedMean",
    "MixtureOfExperts",
    "NeXtVLAD",
    "NetVLAD",
    "VerticalAttention",
]
