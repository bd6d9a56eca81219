"""Scoring of the task `pope_local`: lmms-eval's own, but for two things.

Answers are read by POPE's official parser, as `mbpo_core.evaluation.existence` reads them (lmms-eval wants a bare "yes"
or "no", so that "Yes, there is a boot." counts as wrong), and the yes-ratio is over answers rather than labels.
"""

from lmms_eval.tasks.pope.utils import (  # noqa: F401 (the task names them)
    pope_aggregate_accuracy,
    pope_aggregate_f1_score,
    pope_aggregate_precision,
    pope_aggregate_recall,
    pope_doc_to_text,
    pope_doc_to_visual,
    pope_process_results,
)


def read_answer(doc, results):
    """One question's entry in every metric."""
    return pope_process_results(doc, [official_answer(results[0])])


def official_answer(text):
    """ "no" if No, not or no is a word of the first sentence, else "yes"; commas are removed first."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def yes_ratio(results):
    """Share of the questions that were answered yes."""
    return sum(result["prediction"] == "yes" for result in results) / len(results)
