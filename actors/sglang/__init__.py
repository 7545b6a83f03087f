"""SGLang as a rollout engine: a server in an environment of its own. Imported where engine.kind is sglang, and nowhere else."""
