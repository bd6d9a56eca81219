"""Preference pairs: Image Information Gain of both responses, filters with reasons, the top share of each kind."""
