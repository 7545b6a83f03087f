"""Numbers of the whole path on fixed inputs, kept in files: a change of structure must not change them."""
