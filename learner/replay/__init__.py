"""The replay buffer: admits questions, joins their completions, scores them, and gives the learner its batches."""
