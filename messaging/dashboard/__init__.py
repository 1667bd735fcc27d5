"""Operators’ pages."""
