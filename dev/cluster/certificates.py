"""The cluster's own certificate authority and what it signs, made with the openssl program.

Everything is made once for each state folder and lives as long as that. Nothing here is worth
keeping: a cluster that is taken down takes its keys with it.
"""

from dataclasses import dataclass
from pathlib import Path

from dev.cluster.commands import run

DAYS = 365


@dataclass(frozen=True)
class Subject:
    """Who a certificate is for. Kubernetes reads the name as user and organisation as group."""

    name: str
    organisation: str = ""
    addresses: tuple[str, ...] = ()
    """Where a server answers, as openssl writes it: `IP:127.0.0.1`, `DNS:localhost`."""


@dataclass(frozen=True)
class KeyPair:
    """The files of a certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path

    @property
    def pair(self) -> KeyPair:
        return self._pair("ca")

    def create(self) -> None:
        """Make the authority's own key and certificate. Idempotent."""
        if not self.pair.certificate.exists():
            self._make("ca", request_config(Subject("rerank development cluster"), authority=True))

    def issue(self, name: str, subject: Subject) -> KeyPair:
        """Make a key and a certificate for the subject, for both ends of a connection. Idempotent."""
        pair = self._pair(name)
        if not pair.certificate.exists():
            signer = ("-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key))
            self._make(name, request_config(subject, authority=False), signer)
        return pair

    def signing_key(self, name: str) -> KeyPair:
        """Make a bare key pair, as service account tokens are signed with. Idempotent.

        Returns:
            The private key, and the public key in the place of a certificate.
        """
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        if not public.exists():
            run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private])
            private.chmod(0o600)
            run(["openssl", "ec", "-in", private, "-pubout", "-out", public])
        return KeyPair(certificate=public, key=private)

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def _make(self, name: str, config: str, signer: tuple[str, ...] = ()) -> None:
        pair = self._pair(name)
        request = self.folder / f"{name}.cnf"
        request.write_text(config)
        # The certificate gets its name last: a crash between the two leaves nothing half made.
        unfinished = self.folder / f"{name}.crt.tmp"
        arguments: list[str | Path] = ["openssl", "req", "-x509", "-config", request, "-nodes"]
        arguments += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", str(DAYS)]
        arguments += ["-keyout", pair.key, "-out", unfinished, *signer]
        run(arguments)
        pair.key.chmod(0o600)
        unfinished.replace(pair.certificate)


def request_config(subject: Subject, *, authority: bool) -> str:
    """Return openssl's configuration for one certificate.

    Args:
        subject: whom it is for.
        authority: whether it may sign others.
    """
    lines = ["[req]", "prompt = no", "distinguished_name = subject", "x509_extensions = extensions"]
    lines += ["[subject]", f"CN = {subject.name}"]
    if subject.organisation:
        lines.append(f"O = {subject.organisation}")
    lines += ["[extensions]", "subjectKeyIdentifier = hash"]
    if authority:
        lines += ["basicConstraints = critical,CA:TRUE", "keyUsage = critical,keyCertSign,cRLSign"]
    else:
        lines += ["basicConstraints = critical,CA:FALSE", "keyUsage = critical,digitalSignature"]
        lines += ["extendedKeyUsage = serverAuth,clientAuth"]
    if subject.addresses:
        lines.append(f"subjectAltName = {','.join(subject.addresses)}")
    return "\n".join(lines) + "\n"
