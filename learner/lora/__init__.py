"""Low-rank adapters: attached to the decoder, merged where weights leave the learner, written as a folder that peft reads."""
