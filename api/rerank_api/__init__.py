"""The resources of rerank.dev/v1alpha1 as plain Python: models, names, keys. Needs pydantic alone."""
