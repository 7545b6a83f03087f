"""Weight transfers from the learner to engines: process groups, buckets, checksums. Imports torch and dataflow."""
