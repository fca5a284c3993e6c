"""The tokens that model pods ask for, derived from the master key that the operator and the gateway share."""

from pathlib import Path

from rerank_api import backend_token


class BackendTokens:
    """One token for each namespace; none at all without a master key (models without Kubernetes)."""

    def __init__(self, master: bytes | None) -> None:
        self._master = master
        self._tokens: dict[str, str] = {}

    @classmethod
    def from_file(cls, path: Path | None) -> "BackendTokens":
        """Read the master key.

        Raises:
            OSError: the file cannot be read.
            ValueError: it does not hold a master key.
        """
        return cls(None if path is None else backend_token.read_master(path.read_text(encoding="ascii")))

    def of_namespace(self, namespace: str) -> str | None:
        """The token for the model pods of `namespace`."""
        if self._master is None:
            return None
        token = self._tokens.get(namespace)
        if token is None:
            token = self._tokens[namespace] = backend_token.token(self._master, namespace)
        return token
