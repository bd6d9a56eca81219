"""Where a stage's work runs: which accelerators it takes, and the processes that do it.

Read in this order: `placing` (where a stage computes), `devices` (which accelerators, and the lease on them) with
`locks` below it, `supervisor` (workers: started, watched, ended) with `launcher`, `relay` and `trees`, then `shares`
(how they split one artifact). `nvml` is the only file that asks NVIDIA's driver.
"""
