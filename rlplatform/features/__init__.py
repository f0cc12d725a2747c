"""Features: what a policy may know about the market at each close."""

from rlplatform.features.builder import FeatureBuilder
from rlplatform.features.config import FeatureConfig
from rlplatform.features.cube import FeatureCube
from rlplatform.features.scaler import FeatureScaler

__all__ = ["FeatureBuilder", "FeatureConfig", "FeatureCube", "FeatureScaler"]
