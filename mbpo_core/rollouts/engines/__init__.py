"""Engines: what samples the completions of a round, behind one interface."""
