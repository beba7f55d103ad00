"""Effects of macro shocks by market regime."""
