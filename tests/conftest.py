"""Fixtures for clusters: `control_plane` (no node, in seconds) and `node` (everything)."""

pytest_plugins = ["dev.cluster.pytest_plugin"]
