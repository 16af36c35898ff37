"""Rollout against trainer: what two recordings, or a recording and another side, say of a gap."""
