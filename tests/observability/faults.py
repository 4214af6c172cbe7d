"""Real faults of mounts and certificates, each a context manager that mends what it broke."""

import datetime
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DISK_BYTES = 64 << 20

_HANGING_SERVER = """
import os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"hang", sys.argv[1].encode(), b"fuse.hang", 0, options):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
print("mounted", flush=True)
sys.stdin.read()
"""  # it never reads a request of the kernel's, the first (FUSE_INIT) included, so every caller waits


@contextmanager
def hung_mount(directory: Path) -> Iterator[Path]:
    """Mount a FUSE file system over the directory whose server never answers: all that ask it wait until the end of the
    block, then get an error, and what was there before is there again. Skips without root and FUSE."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("a hung FUSE mount needs root and /dev/fuse")
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-c", _HANGING_SERVER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            if server.stdout.readline() != b"mounted\n":
                pytest.skip(f"FUSE cannot be mounted here: {server.stderr.read().decode()}")
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=False, stderr=subprocess.DEVNULL)
            server.kill()


@contextmanager
def small_disk(where: Path) -> Iterator[Path]:
    """Mount an ext4 of DISK_BYTES. Skips without root, loop devices and mkfs.ext4."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control") or shutil.which("mkfs.ext4") is None:
        pytest.skip("a disk of its own needs root, loop devices and mkfs.ext4")
    image, directory = where / "disk.img", where / "disk"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    # Blocks of 4 KiB: with those of 1 KiB, which a small image gets, records do not fit into the inodes' attributes.
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Take all the space of the directory's file system, and give it back."""
    file = directory / "filler"
    try:
        with file.open("wb", buffering=0) as taken:
            for size in (1 << 20, 1 << 12):
                try:
                    while taken.write(bytes(size)):
                        pass
                except OSError:  # ENOSPC; the smaller pieces find the rest
                    continue
        yield
    finally:
        file.unlink(missing_ok=True)


def write_certificate(directory: Path, ends: datetime.datetime) -> None:
    """Write cert.pem and key.pem of a self-signed certificate for 127.0.0.1 that is good until `ends`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(ends - datetime.timedelta(days=365)).not_valid_after(ends)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (directory / "cert.pem").write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(secret)
    (directory / "key.pem").chmod(0o600)
