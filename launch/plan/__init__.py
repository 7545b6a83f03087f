"""What a run needs and how fast it will be, computed before anything is loaded: pure functions over the configuration and the model's
shape.

`trace.py` alone runs the model, without memory; `memory.py` adds up its parts; `show.py` prints.
"""
