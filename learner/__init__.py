"""Training side: replay buffer, advantages, packing, loss, FSDP learner, EMA teacher, weight broadcast, checkpoints."""
