"""The vocoder as a model of its own, and its training."""
