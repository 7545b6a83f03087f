"""The objective: packing, log-probabilities, advantages, loss and its metrics."""
