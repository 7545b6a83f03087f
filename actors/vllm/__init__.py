"""vLLM as a rollout engine. Imported only if engine.kind is vllm."""
