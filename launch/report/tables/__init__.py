"""Tables that commands print, for people or for programs."""
