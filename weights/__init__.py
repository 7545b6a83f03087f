"""How weights cross between processes: process groups of our own, buckets, checksums. Imports torch and dataflow."""
