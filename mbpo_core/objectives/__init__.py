"""The equations: pure functions of tensors, one equation a file, each beside its source.

Nothing here loads a model or touches a file. Log-probs are in nats; a mask is True where a token is kept.
"""
