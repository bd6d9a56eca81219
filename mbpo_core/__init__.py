"""Modality-Balancing Preference Optimization: the library, free of Prefect."""

__version__ = "0.1.0"
