"""Artifacts as folders to give away: a data set that `datasets` opens, a model that `from_pretrained` loads, each with
its card."""
