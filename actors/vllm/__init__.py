"""vLLM as a rollout engine. Imported where engine.kind is vllm, and nowhere else."""
