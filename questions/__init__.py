"""Questions in their two wordings, the chat template, the order they are asked in, the built-in arithmetic world."""
