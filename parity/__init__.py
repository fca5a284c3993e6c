"""The parity suite: each family of rerankers, served by the real chain, against its model card's own
computation.

`make parity` runs it and writes docs/parity.md. Models are tiny and random, of the real architectures and
tokenizer types, so it proves prompts, truncation, flags, pooling, head and activation, and not how well a
trained model ranks.
"""
