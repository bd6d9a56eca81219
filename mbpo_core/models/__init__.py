"""Loading a multimodal model as a policy, and scoring completions with it."""
