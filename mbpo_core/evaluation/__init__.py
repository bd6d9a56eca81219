"""Evaluation: what a policy gets right on held-out questions, with intervals, paired against the base.

Data flow: `answering` (questions -> Prediction rows) -> `outcomes` (rows parsed once) -> `metrics` (what each row
counts for) -> `summary` (values, intervals, paired differences) -> `table` (for people). `intervals` and `paired` are
the statistics. Only `answering` and `stage` touch a model.
"""
