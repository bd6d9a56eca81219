"""Rollouts: closed-ended questions sampled from the round's policy and rewarded by rules."""
