"""Which samples a filter or a search lets through."""
