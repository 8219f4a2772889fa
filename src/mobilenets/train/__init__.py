"""Learning: features, heads, fine-tuning, metrics. Imports torch, `model`, `data` and the floors below."""
