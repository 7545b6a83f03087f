"""Data sets, the two wordings of a question, the chat template, the order of questions, and the built-in arithmetic world."""
