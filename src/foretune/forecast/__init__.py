"""Forecast: what a backbone and a strategy will reach on these data, and what it will cost."""
