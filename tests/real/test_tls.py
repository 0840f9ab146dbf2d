"""The driver over TLS, on a server that shows a certificate and wants to see ours."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis

from redkeep.errors import Refused, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound import Publisher, Subscriber, Tables, connect, nbctl, sync
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import RedisProcess, free_port

pytestmark = pytest.mark.real


@dataclass
class Secure:
    """A server, and the files that its clients need."""

    address: Address
    files: dict[str, Path]


def certificate(
    directory: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    """`<name>.crt` and `<name>.key`; signed by itself without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0] if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    if "7.0" not in find_servers():
        pytest.skip("needs a redis-server that was built with TLS")
    files = tmp_path_factory.mktemp("tls")
    authority = certificate(files, "ca", None)
    certificate(files, "server", authority)
    certificate(files, "client", authority)
    certificate(files, "stranger", None)
    port = free_port()
    server = RedisProcess(
        f"tls-port {port}",
        f"tls-ca-cert-file {files}/ca.crt",
        f"tls-cert-file {files}/server.crt",
        f"tls-key-file {files}/server.key",
        "tls-auth-clients yes",
        version="7.0",
    )
    try:
        server.start()
        yield Secure(Address("127.0.0.1", port), {one.name: one for one in files.iterdir()})
    finally:
        server.close()


def options(secure: Secure) -> dict[str, Path]:
    return {"ca": secure.files["ca.crt"], "cert": secure.files["client.crt"], "key": secure.files["client.key"]}


async def until(claim: Callable[[], bool], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


async def test_tables_and_messages_travel_encrypted(secure: Secure) -> None:
    heard: list[object] = []
    async with await connect([secure.address], **options(secure)) as client, Subscriber(client) as subscriber:  # type: ignore[arg-type]
        await subscriber.subscribe("a", lambda message: heard.append(message.data))
        tables = Tables(client)
        await tables.set_keys("t", {f"k{n}": "v" * 1000 for n in range(2000)})
        await asyncio.gather(*(tables.set_key("t", f"k{n}", "w" * 1000) for n in range(500)))
        await Publisher(client).publish("a", "over TLS")
        await until(lambda: heard == ["over TLS"])

        assert len(await tables.get_all("t")) == 2000


def test_threads_travel_encrypted(secure: Secure) -> None:
    with sync.connect([secure.address], **options(secure)) as client:
        tables = sync.Tables(client)
        tables.set_key("threads", "a", "1" * 100_000)
        time.sleep(0.3)  # idle: it is asked whether the server has hung up
        assert tables.get_key("threads", "a") == "1" * 100_000


async def test_a_connection_that_was_cut_is_made_again(secure: Secure) -> None:
    async with await connect([secure.address], **options(secure)) as client:  # type: ignore[arg-type]
        await client.execute("SET", "k", 1)
        await asyncio.to_thread(cut, secure)
        assert await client.execute("GET", "k", retry="always") == b"1"


def cut(secure: Secure) -> None:
    files = {name: str(path) for name, path in options(secure).items()}
    certificates = {"ssl_ca_certs": files["ca"], "ssl_certfile": files["cert"], "ssl_keyfile": files["key"]}
    with Redis(host=secure.address.host, port=secure.address.port, ssl=True, **certificates) as admin:  # type: ignore[arg-type]
        admin.client_kill_filter(_type="normal", skipme=True)


async def test_a_server_that_is_not_to_be_believed_is_not_talked_to(secure: Secure) -> None:
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await connect([secure.address], ca=secure.files["stranger.crt"], timeout=1.0)
    with pytest.raises(Unavailable):
        await connect([secure.address], ca=secure.files["ca.crt"], timeout=1.0)  # it wants to see a certificate
    with pytest.raises(Refused, match="nowhere"):
        await connect([secure.address], ca="/nowhere/ca.crt")


def test_on_the_command_line(secure: Secure, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    files = [word for name, path in options(secure).items() for word in (f"--{name}", str(path))]

    assert nbctl.main(["--seeds", str(secure.address), *files, "topology"]) == 0
    assert b"single" in capsysbinary.readouterr().out
