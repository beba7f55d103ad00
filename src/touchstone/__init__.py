"""Posteriors for measurements, and a verdict on whether each may be trusted."""
