"""Certificate authorities of the tests' own, and what they vouch for."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.runtime.grpc import GrpcSecurity
from services.runtime.settings import GrpcSettings

DAY = timedelta(days=1)


class Authority:
    """Writes PEM files into ``folder``, which is made."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        certificate = (
            self._builder(self._name, self._key, timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *, days: float = 1, host: str = "localhost") -> tuple[Path, Path]:
        """The files of a certificate for ``host`` and 127.0.0.1, and of its key. ``days``: negative: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ip_address("127.0.0.1")))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key, timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def security(self, name: str, *, days: float = 1, host: str = "localhost") -> GrpcSecurity:
        """With a certificate of its own: mTLS."""
        certificate, key = self.issue(name, days=days, host=host)
        return read_security(grpc_ca=self.file, grpc_certificate=certificate, grpc_key=key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid_for: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + valid_for)
        )


def settings_of(**fields: object) -> GrpcSettings:
    servers = {"DATABASE_URL": "postgresql://db/x", "NATS_URL": "nats://nats:4222"}
    return GrpcSettings.model_validate({**servers, **fields})


def read_security(**fields: object) -> GrpcSecurity:
    return GrpcSecurity.read(settings_of(**fields))
