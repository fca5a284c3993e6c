"""A one-node Kubernetes for the demo and the tests, made from source without Docker or a registry."""
