"""From a completion's text to an answer, and from an answer to its key."""
