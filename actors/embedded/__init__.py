"""The embedded engine: our continuous-batching sampler over a transformers full-attention decoder. Needs nothing but torch."""
