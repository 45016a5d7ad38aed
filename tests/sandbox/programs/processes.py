"""Other processes, and more of everything than a skill may have."""

import ctypes
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time

from main import Blocked

MIB = 1024 * 1024
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result):
    """Raises the error of a call of the C library."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def attack_read_environment(p):
    with open(f"/proc/{p['victim']}/environ", "rb") as file:
        return file.read(10)


def control_read_environment(p):
    assert os.getpid() > 0 and os.getppid() >= 0


def attack_list_processes(p):
    if str(p["victim"]) not in os.listdir("/proc"):
        raise Blocked("the process is not listed")


def control_list_processes(p):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert child.poll() is None
    child.kill()
    assert child.wait() == -signal.SIGKILL


def attack_read_memory(p):
    with open(f"/proc/{p['victim']}/maps", encoding="utf-8") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{p['victim']}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(4)


def control_read_memory(p):
    text = ctypes.create_string_buffer(b"own memory")
    assert ctypes.string_at(text) == b"own memory"


def attack_kill(p):
    os.kill(p["victim"], signal.SIGUSR2)


def control_kill(p):
    got = []
    signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    assert got == [1, 1]


def attack_kill_parent(p):
    # Inside a namespace the parent is outside, and has no number here.
    if os.getppid() == 0:
        raise Blocked("the parent can't be named")
    os.kill(os.getppid(), 0)


def control_kill_parent(p):
    child = os.fork()
    if child == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def attack_queue_signal(p):
    LIBC.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    check(LIBC.sigqueue(p["victim"], 0, None))


def control_queue_signal(p):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()


def attack_ptrace(p):
    attach, detach = 16, 17
    check(LIBC.ptrace(attach, p["victim"], None, None))
    os.waitpid(p["victim"], 0x40000000)
    check(LIBC.ptrace(detach, p["victim"], None, None))


def control_ptrace(p):
    seen = []
    sys.settrace(lambda *event: seen.append(event[1]))
    (lambda: None)()
    sys.settrace(None)
    assert "call" in seen


def attack_limits_of_others(p):
    resource.prlimit(p["victim"], resource.RLIMIT_NOFILE)


def control_limits_of_others(p):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 32), hard))


def attack_raise_limits(p):
    wanted = resource.RLIM_INFINITY
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (wanted, wanted))
        resource.setrlimit(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC))
    except ValueError as error:
        raise Blocked(str(error)) from error


def control_raise_limits(p):
    assert resource.getrlimit(resource.RLIMIT_STACK)[0] != 0


def attack_priority(p):
    os.setpriority(os.PRIO_PROCESS, 0, -5)


def control_priority(p):
    assert os.getpriority(os.PRIO_PROCESS, 0) >= -20


def attack_fork_bomb(p):
    children = []
    try:
        for _ in range(120):
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            children.append(child)
        return f"{len(children)} children"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)


def control_fork_bomb(p):
    children = [subprocess.Popen([sys.executable, "-c", "1"]) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]


def attack_thread_bomb(p):
    over = threading.Event()
    threads = []
    try:
        for _ in range(120):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            threads.append(thread)
        return f"{len(threads)} threads"
    except RuntimeError as error:
        raise Blocked(str(error)) from error
    finally:
        over.set()


def control_thread_bomb(p):
    got = []
    threads = [threading.Thread(target=got.append, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(8))


def attack_memory(p):
    held = [bytearray(b"x") * (16 * MIB) for _ in range(40)]
    return f"{len(held) * 16} MiB"


def control_memory(p):
    assert len(bytearray(b"x") * (40 * MIB)) == 40 * MIB


def attack_shared_memory(p):
    held = []
    for _ in range(40):
        memory = mmap.mmap(-1, 16 * MIB)
        for page in range(0, 16 * MIB, 4096):
            memory[page] = 1
        held.append(memory)
    return f"{len(held) * 16} MiB"


def control_shared_memory(p):
    memory = mmap.mmap(-1, 8 * MIB)
    memory[0] = 1


def attack_memory_of_many(p):
    children = []
    try:
        for _ in range(8):
            child = os.fork()
            if child == 0:
                held = bytearray(b"x") * (60 * MIB)
                time.sleep(1.5 + len(held) * 0)
                os._exit(0)
            children.append(child)
        for child in children:
            if os.waitpid(child, 0)[1] != 0:
                raise Blocked("a child was ended")
        return f"{len(children) * 60} MiB"
    except ChildProcessError as error:
        raise Blocked("the children are gone") from error


def control_memory_of_many(p):
    child = os.fork()
    if child == 0:
        held = bytearray(b"x") * (20 * MIB)
        os._exit(0 if held else 1)
    assert os.waitpid(child, 0)[1] == 0


def attack_processor(p):
    while time.process_time() < 2:
        sum(range(10_000))
    return "2 s of processor time"


def control_processor(p):
    while time.process_time() < 0.3:
        sum(range(10_000))


def attack_ignore_end(p):
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            pass
    time.sleep(4)
    return "it lived for 4 s"


def control_ignore_end(p):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.05)


def attack_output(p):
    for _ in range(64):
        sys.stdout.write("x" * MIB)


def control_output(p):
    sys.stderr.write("a word about it\n")


def attack_errors(p):
    for _ in range(64):
        sys.stderr.write("x" * MIB)


def control_errors(p):
    sys.stderr.write("x" * 100_000)


def path(name):
    return os.path.join(os.environ["TMPDIR"], name)


def attack_disk(p):
    for number in range(60):
        with open(path(f"file{number}"), "wb") as file:
            file.write(b"x" * (2 * MIB))
        # Slower than the eye of the watch, which counts the folder where it can't be bounded.
        time.sleep(0.01)
    return "120 MiB"


def control_disk(p):
    for number in range(4):
        with open(path(f"file{number}"), "wb") as file:
            file.write(b"x" * MIB)


def attack_file_size(p):
    with open(path("large"), "wb") as file:
        for _ in range(50):
            file.write(b"x" * MIB)
            file.flush()
    return "50 MiB"


def control_file_size(p):
    with open(path("large"), "wb") as file:
        file.write(b"x" * (8 * MIB))


def attack_many_files(p):
    for number in range(40_000):
        open(path(f"n{number}"), "w").close()
    return "40000 files"


def control_many_files(p):
    for number in range(100):
        open(path(f"n{number}"), "w").close()


def attack_open_files(p):
    held = []
    try:
        for _ in range(400):
            held.append(os.open("/dev/null", os.O_RDONLY))
        return f"{len(held)} files"
    finally:
        for number in held:
            os.close(number)


def control_open_files(p):
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
    for number in held:
        os.close(number)


def attack_orphan(p):
    if os.fork() == 0:
        os.close(1)
        os.close(2)
        time.sleep(8)
        os._exit(0)
    raise Blocked("the test looks whether it lives")


def control_orphan(p):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def attack_daemon(p):
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                os.close(1)
                os.close(2)
                time.sleep(8)
        finally:
            os._exit(0)
    time.sleep(0.05)
    raise Blocked("the test looks whether it lives")


def control_daemon(p):
    done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert done.stdout == b"1\n"


def attack_keep_output_open(p):
    # Nobody must wait for the end of an output that a child holds.
    if os.fork() == 0:
        time.sleep(8)
        os._exit(0)
    raise Blocked("the test looks whether it lives")


def control_keep_output_open(p):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, b"x")
        os._exit(0)
    os.close(write)
    assert os.read(read, 2) == b"x"
    os.wait()
