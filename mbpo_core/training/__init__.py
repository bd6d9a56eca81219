"""Training: hybrid GRPO on groups through the DeepSpeed engine, and its baselines DPO and SFT.

Read in this order: `stage` (in and out), `loop` (the method), `plan` (which groups a step sees), `losses` (what a
micro-batch adds to the step's loss), `engine` (the only file that knows DeepSpeed).
"""
