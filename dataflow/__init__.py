"""The types that travel between processes, their wire format and the settings base. Imports numpy, msgpack and pydantic only."""
