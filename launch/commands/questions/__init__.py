"""Commands about questions, before anything is trained."""
