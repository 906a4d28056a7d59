"""Dialogue data: what is said (grammar), the voices that say it, and the two-channel audio."""
