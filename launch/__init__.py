"""Configuration, command line, controller and run directory: what turns the parts into a program."""
