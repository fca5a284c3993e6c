"""One module for each family: how its tiny model is built, and how its model card computes a score."""
