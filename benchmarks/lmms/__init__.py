"""The task `pope_local` for lmms-eval, and what brings its questions and answers over; see docs/lmms_eval.md."""
