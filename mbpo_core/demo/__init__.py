"""The demo: scenes with exact truth, questions about them, and a tiny LLaVA that leans on its language prior.

Data flow: `objects` (tables) -> `scenes` (pictures) -> `questions` (text) -> `pools` (Samples).
`tiny_llava`, `corpus`, `packing` and `base_training` make the checkpoints in `assets/`; only these import torch.
"""
