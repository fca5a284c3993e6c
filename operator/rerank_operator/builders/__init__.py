"""The objects that the operator applies: plain dicts that read like their YAML. Pure."""
