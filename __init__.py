"""MichiAI: a small full-duplex speech language model."""
