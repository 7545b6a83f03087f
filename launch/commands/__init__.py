"""The commands of `corewarding`, one file each."""
