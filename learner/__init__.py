"""The training side: replay buffer, objective, FSDP2 learner, EMA teacher and checkpoints."""
