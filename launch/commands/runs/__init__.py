"""Commands that read a run after its end, or while it goes on."""
