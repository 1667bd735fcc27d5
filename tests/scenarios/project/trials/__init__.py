"""Trials: consumers that fail in every way, and the rows that show what they did."""
