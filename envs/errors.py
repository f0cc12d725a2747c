"""What a user did wrong, said in one line: where, what was found, what was expected, what to do."""


class PlatformError(ValueError):
    """A mistake in what a user gave us. The command line prints it without a stack trace and exits with 2."""


class MarketDataError(PlatformError):
    """Prices, features or dates that cannot be traded on."""


class ConfigError(PlatformError):
    """A setting outside its meaning."""


class ShapeError(PlatformError):
    """Arrays whose axes disagree."""
