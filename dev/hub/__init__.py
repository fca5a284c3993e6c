"""A small Hugging Face hub for the demo and the tests, where the real one cannot be reached."""
