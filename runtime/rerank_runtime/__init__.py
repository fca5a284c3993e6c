"""What runs in a model pod: fetch the weights, plan how to serve them, run and verify vLLM, drain."""
