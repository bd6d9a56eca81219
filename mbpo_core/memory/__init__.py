"""How much memory a run needs, from the model's config.json and the settings alone: no weights, no accelerator.

Read in this order: `stages` (what each stage holds, phase by phase), `states` (weights, gradients, optimizer),
`activations` (what a pass leaves behind), `architecture` (the model as numbers), `knobs` (what to turn). An estimate is
a sum of named terms in bytes on one process's device; docs/memory.md says how near it comes.
"""
