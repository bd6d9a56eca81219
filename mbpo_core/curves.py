"""How to read the curves of training: unit, healthy range, and what to do outside it, for every metric.

What a metric is stands at its column (`TrainingStep`); docs/metrics.md is made of both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """Reading of one metric.

    Attributes:
        unit: of its values; empty for a number of no unit.
        healthy: what to expect while training goes well.
        outside: what it means otherwise, and what to change.
    """

    unit: str
    healthy: str
    outside: str = ""


_FAST = "Lower `learning_rate`, or raise `beta` (groups) or `dpo_beta` (pairs)."

CURVES: dict[str, Curve] = {
    "step": Curve("", "One more each row; goes on over the rounds.", "A gap cannot be: a resumed round fills it."),
    "round_index": Curve("", "Below `rounds`."),
    "learning_rate": Curve(
        "", "`warmup_steps` up to `learning_rate`, then as `schedule` says; rounds do not start it anew."
    ),
    "loss": Curve(
        "",
        "GRPO: within ±0.1 of 0, later the KL term. Other objectives fall from a known start: DPO log 2, MFPO and mDPO "
        "with their three terms 3 log 2, SFT the mean -log p(chosen).",
        "A GRPO loss above 1 is the KL term: look at `kl`. A DPO loss that stays at its start: nothing is learned, "
        "raise `learning_rate`.",
    ),
    "offline_loss": Curve(
        "", "As `loss`; null in steps without pairs.", "Compare the two shares: one may hide the other."
    ),
    "online_loss": Curve("", "As `loss` of GRPO; null in steps without rollouts."),
    "grad_norm": Curve(
        "",
        "Steady within a factor of 10 of its first values; 0 in a step without anything to learn.",
        f"Spikes are clipped to `max_grad_norm`. When most steps lie above it, direction is all that is left. {_FAST}",
    ),
    "kl": Curve(
        "nats per token",
        "0 at the first step of the first round (policy = reference), then rising slowly; with SFT, or GRPO on "
        "rollouts alone, mostly below 2.",
        "k3 is exponential where a token has become much less likely than under the reference, so any objective that "
        "pushes rejected responses down drives it up by them alone. Read it together with `chosen_drift`: both bad "
        f"means the policy is lost. {_FAST} `max_drop` bounds the push.",
    ),
    "clip_fraction": Curve(
        "share",
        "Below 0.2; rollouts alone, late in a round, up to 0.5. 0 where nothing is clipped: other objectives than "
        "GRPO, and single updates on policy without `max_drop`.",
        "The batch is used up: lower `inner_steps`, `epochs` or `learning_rate`, or use more rounds.",
    ),
    "advantage_abs": Curve(
        "",
        "1 for pairs with `advantage_scale: population`, 0.65 to 1 for groups; 0 for objectives without advantages.",
        "Falling toward 0: groups agree and teach nothing. See `groups_zero_variance`.",
    ),
    "reward": Curve(
        "reward",
        "Rising over the rounds up to accuracy plus format reward; noisy from step to step, flat within a round whose "
        "rollouts are fixed.",
        "Near its maximum there is nothing left to learn. Falling from round to round: the pairs hurt the closed "
        "questions, lower `offline_weight`. Near the format reward alone: look at the completions in the report.",
    ),
    "groups_offline": Curve("groups", "`pairs_per_step`, less in an epoch's last step.", "0 throughout: no pairs."),
    "groups_online": Curve(
        "groups", "Above 0 where `use_online` is on.", "0 throughout: all groups agree, or there are no rollouts."
    ),
    "groups_zero_variance": Curve(
        "groups",
        "Below half of what is drawn.",
        "Questions are too easy or too hard: raise `rollouts.temperature` or the group size, or pick prompts (method "
        "`mbpo_mopps`).",
    ),
    "tokens": Curve(
        "tokens", "Steady.", "Growing with `reward` flat: answers get longer, see `rollouts.overlong_share`."
    ),
    "chosen_logprob": Curve(
        "nats per token",
        "Rising, or level: at most 0.",
        "Falling: the chosen responses are lost too; see `chosen_drift`.",
    ),
    "rejected_logprob": Curve(
        "nats per token",
        "Falling slowly behind `chosen_logprob`; 1 to 3 nats below it in the demo.",
        f"Below -5: the responses are pushed out of the language, and other answers with them. {_FAST}",
    ),
    "chosen_drift": Curve(
        "nats per token",
        "0 at first, then above 0.",
        "Below -`stop_drop` over `stop_window` steps the stop rule ends the round and takes the last checkpoint "
        "before. When it fires early: fewer `epochs`, lower `learning_rate`, `offline_ratio: reference`, or "
        "`add_likelihood`.",
    ),
    "chosen_reward": Curve(
        "reward, `dpo_beta` × nats",
        "0 at first, then above `rejected_reward`; best above 0.",
        "Falling while the margin grows is DPO's well-known trap: raise `margin` or `add_anchor`, or use mfpo.",
    ),
    "rejected_reward": Curve(
        "reward, `dpo_beta` × nats",
        "0 at first, then falling.",
        "Above `chosen_reward`: pairs are the wrong way round.",
    ),
    "wrong_image_reward": Curve(
        "reward, `dpo_beta` × nats",
        "Below `chosen_reward` for image-side objectives; null for those that do not look at a wrong image.",
        "Level with `chosen_reward`: the policy gives the answer whatever the picture. Raise `add_image` or "
        "`image_weight`, or make harder wrong images.",
    ),
    "positions": Curve("tokens", "Steady; what a budget at equal compute counts (`token_budget`)."),
    "rollout_gap": Curve(
        "nats",
        "Below 1e-4 at a round's first step in float32 with engine transformers, below 0.05 in bfloat16 or with "
        "another engine; then rising as the policy learns, unless `rollout_correction` is on, which leaves that out.",
        "Above 0.1 at a round's first step: the engine samples from another distribution. See `rollout_gap_max`, that "
        "the endpoint serves this round's checkpoint, and set `rollout_correction: 2`.",
    ),
    "rollout_gap_max": Curve(
        "nats", "Below 1 at a round's first step.", "Single tokens far off with a small mean: rare tokens; cap them."
    ),
    "importance_weight": Curve(
        "", "Within 0.05 of 1; null where `rollout_correction` is off.", "Far from 1: as `rollout_gap`."
    ),
    "importance_capped": Curve(
        "share", "Below 0.01.", "Above 0.1: most of the correction is cut off; look for the cause of `rollout_gap`."
    ),
    "stopped": Curve("", "0, or 1 in the last row alone.", "See `chosen_drift`."),
    "seconds": Curve("s", "Steady.", "Growing: the device is shared, or memory is short; `mbpo doctor`."),
    "cpu_seconds": Curve("s", "Steady; about `seconds` times threads on a CPU."),
}
