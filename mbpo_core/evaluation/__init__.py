"""Evaluation: what a policy gets right on held-out questions, with intervals, paired against the base.

Data flow: `questions` (which are asked) -> `answering` and `balance` (-> Prediction rows) -> `outcomes` (rows parsed
once) -> `metrics` (what each row counts for) -> `counts` -> `entries` (values, intervals, paired differences) ->
`summary`, of one run or several -> `table` (for people). `intervals`, `paired` and `clusters` are the statistics.
Only `answering`, `balance` and `stage` touch a model. docs/evaluation.md lists every metric.
"""
