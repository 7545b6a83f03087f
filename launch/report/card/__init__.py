"""What goes with an exported model: its card, and the way to the hub."""
