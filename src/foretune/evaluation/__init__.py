"""Honest numbers: metrics with intervals, trivial baselines, mistakes and the report of a run."""
