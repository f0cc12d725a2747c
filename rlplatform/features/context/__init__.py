"""What surrounds the assets: macro and market series joined by time of publication, sectors, clusters, risk."""

from rlplatform.features.context.config import ContextConfig, SeriesConfig

__all__ = ["ContextConfig", "SeriesConfig"]
