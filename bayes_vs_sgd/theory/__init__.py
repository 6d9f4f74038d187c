"""Closed forms, one file a topic, each with its source."""
