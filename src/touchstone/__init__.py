"""Posteriors for measurements, and a verdict on whether each may be trusted."""

__version__ = "0.1.0"
