"""Parts of the wire format: carriers as columns, and the types of their fields."""
