"""System calls that no skill needs."""

import ctypes
import fcntl
import os
import platform
import struct
import sys
import time

from main import Blocked

LIBC = ctypes.CDLL(None, use_errno=True)
# Number on x86-64, and where all newer processors agree.
NUMBERS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "memfd_create": (319, 279),
    "process_vm_readv": (310, 270),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "shmget": (29, 194),
    "personality": (135, 92),
    "pidfd_open": (434, 434),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "sethostname": (170, 161),
    "setuid": (105, 146),
}
NEW_USER = 0x10000000


def call(name, *arguments):
    number = NUMBERS[name][0 if platform.machine() == "x86_64" else 1]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *wide)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def attack_mount(p):
    place = os.path.join(os.environ["TMPDIR"], "mounted")
    os.mkdir(place)
    call("mount", b"none", place.encode(), b"tmpfs", 0, b"")
    call("umount2", place.encode(), 2)


def control_mount(p):
    os.mkdir(os.path.join(os.environ["TMPDIR"], "folder"))
    assert os.statvfs(os.environ["TMPDIR"]).f_bsize > 0


def attack_new_mount(p):
    os.close(call("fsopen", b"tmpfs", 0))


def control_new_mount(p):
    assert not os.path.ismount(os.path.join(os.environ["TMPDIR"], "nothing"))


def attack_open_tree(p):
    os.close(call("open_tree", -100, b"/", 1))


def control_open_tree(p):
    assert os.path.isdir(os.getcwd())


def attack_unshare(p):
    call("unshare", NEW_USER)


def control_unshare(p):
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def attack_clone_namespace(p):
    child = call("clone", NEW_USER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def control_clone_namespace(p):
    child = call("clone", 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def attack_enter_namespace(p):
    with open(f"/proc/{p['victim']}/ns/uts") as space:
        call("setns", space.fileno(), 0)


def control_enter_namespace(p):
    assert os.uname().nodename


def attack_chroot(p):
    os.chroot(os.environ["TMPDIR"])


def control_chroot(p):
    os.chdir(os.environ["TMPDIR"])
    assert os.getcwd()


def attack_keyring(p):
    process_keyring = -2
    call("add_key", b"user", b"evo", b"secret", 6, process_keyring)


def control_keyring(p):
    import hashlib
    import secrets

    assert len(hashlib.sha256(secrets.token_bytes(8)).hexdigest()) == 64


def attack_bpf(p):
    # A map of four bytes to four bytes.
    attributes = struct.pack("IIIII", 1, 4, 4, 1, 0).ljust(72, b"\0")
    os.close(call("bpf", 0, attributes, len(attributes)))


def control_bpf(p):
    assert struct.unpack("I", struct.pack("I", 7)) == (7,)


def attack_userfaultfd(p):
    os.close(call("userfaultfd", 1))


def control_userfaultfd(p):
    import select

    read, write = os.pipe()
    os.write(write, b"x")
    assert select.select([read], [], [], 1)[0]


def attack_perf(p):
    # A counter of the own process's time in software.
    attributes = struct.pack("IIQ", 1, 112, 1) + struct.pack("QQQQ", 0, 0, 0, 1 << 5 | 1 << 6)
    os.close(call("perf_event_open", attributes.ljust(112, b"\0"), 0, -1, -1, 0))


def control_perf(p):
    assert time.perf_counter() > 0 and time.thread_time() >= 0


def attack_io_uring(p):
    os.close(call("io_uring_setup", 4, b"\0" * 120))


def control_io_uring(p):
    import asyncio

    async def work():
        await asyncio.sleep(0.01)
        return 7

    assert asyncio.run(work()) == 7


def attack_memory_file(p):
    file = call("memfd_create", b"program", 0)
    with open(sys.executable, "rb") as program:
        os.write(file, program.read(1000))
    return file


def control_memory_file(p):
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(b"x")


def attack_run_memory_file(p):
    script = b"#!" + sys.executable.encode() + b"\n"
    file = call("memfd_create", b"program", 0)
    os.write(file, script)
    child = os.fork()
    if child == 0:
        try:
            os.execve(file, ["program"], {})
        finally:
            os._exit(9)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9:
        raise Blocked("it was not executed")


def control_run_memory_file(p):
    child = os.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-c", "1"], dict(os.environ))
    assert os.waitpid(child, 0)[1] == 0


def attack_read_other_memory(p):
    local = (ctypes.c_char * 8)()

    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    ours = Part(ctypes.addressof(local), 8)
    theirs = Part(int(p["victim_address"], 16), 8)
    return call("process_vm_readv", p["victim"], ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)


def control_read_other_memory(p):
    import array

    assert array.array("i", [1, 2])[1] == 2


def attack_system_v(p):
    key, create = 0, 0o1600
    return call("shmget", key, 4096, create)


def control_system_v(p):
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


def attack_personality(p):
    # No randomised addresses any more: exploits like that.
    call("personality", 0x0040000)


def control_personality(p):
    assert platform.machine()


def attack_process_handle(p):
    os.close(call("pidfd_open", p["victim"], 0))


def control_process_handle(p):
    import subprocess

    assert subprocess.run([sys.executable, "-c", "1"], check=True).returncode == 0


def attack_file_handle(p):
    handle = struct.pack("Ii", 128, 0).ljust(136, b"\0")
    buffer = ctypes.create_string_buffer(handle, 136)
    mount = ctypes.c_int()
    folder = os.open("/", os.O_RDONLY)
    call("name_to_handle_at", folder, b"etc", buffer, ctypes.byref(mount), 0)
    os.close(call("open_by_handle_at", folder, buffer, os.O_RDONLY))


def control_file_handle(p):
    folder = os.open(os.environ["TMPDIR"], os.O_RDONLY)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))


def attack_become_root(p):
    call("setuid", 0)
    if os.geteuid() != 0 or not p["is_root"]:
        raise Blocked("it is no root")
    with open("/proc/self/status") as status:
        if "CapEff:\t0000000000000000" in status.read():
            raise Blocked("it has no rights")


def control_become_root(p):
    assert os.getuid() == os.geteuid()


def attack_host_name(p):
    call("sethostname", platform.node().encode(), len(platform.node()))


def control_host_name(p):
    assert platform.node()


def attack_type_for_others(p):
    # Simulated typing at the terminal, which its shell would execute.
    main, terminal = os.openpty()
    if os.fork() == 0:
        os.setsid()
        fcntl.ioctl(terminal, 0x540E, 0)
        try:
            fcntl.ioctl(terminal, 0x5412, b"x")
        finally:
            os._exit(0)
    os.wait()
    if not os.read(main, 1):
        raise Blocked("nothing was typed")


def control_type_for_others(p):
    assert not os.isatty(0) and not os.isatty(1)


def attack_terminal_request(p):
    # Where the terminal is the runner's own, the request itself must fail: not for want of one.
    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        import errno

        if error.errno == errno.ENOTTY:
            return "the request was made"
        raise


def control_terminal_request(p):
    import array

    read, write = os.pipe()
    os.write(write, b"abc")
    waiting = array.array("i", [0])
    fcntl.ioctl(read, 0x541B, waiting)
    assert waiting[0] == 3
