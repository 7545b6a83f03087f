"""Text in, numbers out: extraction, votes, reward rules, diagnostics. Imports no torch and no ray."""
