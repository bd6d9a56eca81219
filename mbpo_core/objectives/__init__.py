"""The equations: pure functions of tensors, one equation a file, each beside its source.

Nothing here loads a model or touches a file. Log-probs are in nats; a mask is True where a token is kept.

A log-ratio is the sum over a completion's tokens of log pi - log pi_ref: how much likelier the policy has made it.
The preference losses take those of (y_w | image), (y_l | image) and (y_w | wrong image) as `chosen`, `rejected` and
`chosen_wrong`.
"""
