"""SGLang as a rollout engine: a server in an environment of its own. Imported only if engine.kind is sglang."""
