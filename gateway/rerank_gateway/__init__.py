"""The gateway: one HTTP service in front of every model of the cluster. `main.py` is where it starts."""
