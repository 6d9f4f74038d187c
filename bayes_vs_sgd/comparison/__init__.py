"""Comparison of laws."""
