"""What a program that was taken over might try, each with the answers that count as refused.

Harmless where it is allowed: an act undoes itself, changes what dies with its process, or has an argument that the
kernel refuses only after it has looked for the privilege.
"""

import ctypes
import mmap
import os
import platform
import socket
from typing import Final

from tests.systemd.acts import (
    DATA,
    DEVICE,
    ELSEWHERE,
    NETWORK_SECONDS_MAX,
    OTHER_HOME,
    OTHER_TEMPORARY,
    OUTER_ADDRESS,
    Act,
    entering,
    libc,
)

SYSCALLS: Final = {
    "x86_64": {
        "reboot": 169, "clock_settime": 227, "kexec_load": 246, "keyctl": 250, "perf_event_open": 298,
        "finit_module": 313, "bpf": 321, "io_uring_setup": 425,
    },
    "aarch64": {
        "reboot": 142, "clock_settime": 112, "kexec_load": 104, "keyctl": 219, "perf_event_open": 241,
        "finit_module": 273, "bpf": 280, "io_uring_setup": 425,
    },
}[platform.machine()]  # fmt: skip
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
BPF_PROG_LOAD: Final = 5
KEYCTL_GET_KEYRING_ID: Final = 0
KEY_SPEC_SESSION_KEYRING: Final = -3
PTRACE_TRACEME: Final = 0
SYSLOG_ACTION_READ_ALL: Final = 3
PERSONALITY_UNAME26: Final = 0x20000

ACTS: Final[dict[str, Act]] = {}
act = entering(ACTS)


def kernel(name: str, *arguments: object) -> int:
    """A system call for which the C library has no function, or one that looks at the arguments itself."""
    return libc("syscall", SYSCALLS[name], *arguments)


def make(path: str) -> None:
    """Make a file and remove it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    os.unlink(path)


def opened(path: str, flags: int = os.O_RDONLY) -> None:
    """Open an existing file, and no more."""
    os.close(os.open(path, flags))


# Files


@act("EROFS")
def make_a_file_in_etc() -> None:
    make("/etc/probe")


@act("EROFS")
def make_a_file_in_usr() -> None:
    make("/usr/bin/probe")


@act("EROFS")
def make_a_file_in_the_release() -> None:
    make("/opt/blobedge/current/bin/probe")


@act("EROFS EACCES")
def open_the_configuration_for_writing() -> None:
    opened("/etc/blobedge/blobedge.toml", os.O_WRONLY)


@act("EROFS")
def make_a_file_where_anybody_may() -> None:
    make(f"{ELSEWHERE}/probe")


@act("EACCES")
def read_the_password_hashes() -> None:
    opened("/etc/shadow")


@act("EACCES")
def read_the_account_keys_at_their_source() -> None:
    opened("/etc/blobedge/secrets/plant7.key1")


@act("EACCES")
def list_the_home_of_root() -> None:
    os.listdir("/root")


@act("EACCES ENOENT")
def read_the_home_of_another_user() -> None:
    opened(f"{OTHER_HOME}/note")


@act("ENOENT")
def read_a_temporary_file_of_others() -> None:
    opened(OTHER_TEMPORARY)


@act("EPERM EACCES")
def make_a_device_node() -> None:
    os.mknod(f"{DATA}/probe-device", 0o600 | 0o020000, os.makedev(1, 3))
    os.unlink(f"{DATA}/probe-device")


@act("ENOENT")
def open_a_device_of_the_machine() -> None:
    opened(DEVICE)


def _with_mode(mode: int) -> None:
    path = f"{DATA}/probe-mode"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        os.chmod(path, mode)
    finally:
        os.unlink(path)


@act()
def make_a_set_user_id_file() -> None:
    _with_mode(0o4755)


@act()
def make_a_set_group_id_file() -> None:
    _with_mode(0o2755)


@act()
def give_a_file_away() -> None:
    path = f"{DATA}/probe-owner"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        os.chown(path, 65534, 65534)
    finally:
        os.unlink(path)


# The kernel


@act("EROFS EACCES")
def open_a_kernel_setting_for_writing() -> None:
    opened("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY)


@act("ENOENT EACCES")
def read_the_symbols_of_the_kernel() -> None:
    opened("/proc/kallsyms")


@act()
def read_the_log_of_the_kernel() -> None:
    buffer = ctypes.create_string_buffer(4096)
    libc("klogctl", SYSLOG_ACTION_READ_ALL, buffer, len(buffer))


@act("EROFS EACCES")
def make_a_control_group() -> None:
    os.mkdir("/sys/fs/cgroup/probe")
    os.rmdir("/sys/fs/cgroup/probe")


@act(outside="EBADF ENOSYS")
def load_a_kernel_module() -> None:
    kernel("finit_module", -1, b"", 0)


@act(outside="EINVAL ENOSYS")
def load_another_kernel() -> None:
    kernel("kexec_load", 0, 0, 0, 0xFFFF)


@act(outside="EINVAL")
def reboot() -> None:
    kernel("reboot", 0, 0, 0, None)  # without the magic numbers


@act(outside="ENOENT")
def swap_to_a_file() -> None:
    libc("swapon", b"/nonexistent", 0)


@act(outside="EINVAL")
def set_the_clock() -> None:
    time = (ctypes.c_long * 2)(0, 2_000_000_000)  # too many nanoseconds
    kernel("clock_settime", 0, time)


@act()
def set_the_host_name() -> None:
    name = socket.gethostname().encode()
    libc("sethostname", name, len(name))


@act(outside="EINVAL EFAULT E2BIG")
def load_a_bpf_program() -> None:
    kernel("bpf", BPF_PROG_LOAD, None, 0)


@act(outside="EFAULT EINVAL")
def watch_with_performance_counters() -> None:
    kernel("perf_event_open", None, 0, -1, -1, 0)


@act(outside="EFAULT")
def set_up_an_io_uring() -> None:
    kernel("io_uring_setup", 1, None)


@act()
def look_into_a_keyring() -> None:
    kernel("keyctl", KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1)


@act(outside="EINVAL")
def watch_all_files_of_a_mount() -> None:
    libc("fanotify_init", 0xFFFF, 0)


# Processes


@act("ENOENT")
def see_another_process() -> None:
    os.stat("/proc/1")


@act("EPERM ESRCH")
def signal_a_process_of_another_user() -> None:
    os.kill(1, 0)


@act()
def trace_a_process() -> None:
    libc("ptrace", PTRACE_TRACEME, 0, 0, 0)


@act()
def read_the_memory_of_another_process() -> None:
    libc("process_vm_readv", os.getppid(), None, 0, None, 0, 0)


@act()
def become_root() -> None:
    os.setresuid(0, 0, 0)


@act()
def make_a_user_namespace() -> None:
    libc("unshare", CLONE_NEWUSER)


@act()
def make_a_network_namespace() -> None:
    libc("unshare", CLONE_NEWNET)


@act()
def make_a_mount_namespace() -> None:
    libc("unshare", CLONE_NEWNS)


@act()
def mount_a_file_system() -> None:
    libc("mount", b"tmpfs", ELSEWHERE.encode(), b"tmpfs", 0, None)
    libc("umount2", ELSEWHERE.encode(), 0)


@act()
def change_the_root_directory() -> None:
    os.chroot("/")


@act()
def get_realtime_scheduling() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@act()
def change_the_personality() -> None:
    libc("personality", ctypes.c_ulong(PERSONALITY_UNAME26))


@act("EPERM EACCES")
def map_writable_and_executable_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


# The network


@act()
def open_a_raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@act("EAFNOSUPPORT")
def open_a_packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


@act("EAFNOSUPPORT")
def open_a_netlink_socket() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


@act("EACCES EPERM")
def listen_on_a_privileged_port() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 81))


@act("EPERM ETIMEDOUT", outside="ECONNREFUSED")
def connect_beyond_the_loopback() -> None:
    with socket.socket() as client:
        client.settimeout(NETWORK_SECONDS_MAX)
        client.connect((OUTER_ADDRESS, 9))


@act("EPERM")
def send_a_datagram_beyond_the_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"", (OUTER_ADDRESS, 9))
