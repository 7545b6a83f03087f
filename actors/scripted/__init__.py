"""An engine that replays recorded completions."""
