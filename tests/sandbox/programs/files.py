"""Files that are none of the skill's business."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from main import Blocked

HERE = pathlib.Path(__file__).parent


def scratch(name):
    return pathlib.Path(os.environ["TMPDIR"], name)


def attack_read_outside(p):
    return pathlib.Path(p["secret"]).read_text()


def control_read_outside(p):
    return (HERE / "data.txt").read_text()


def attack_list_outside(p):
    return os.listdir(os.path.dirname(p["secret"]))


def control_list_outside(p):
    assert "data.txt" in os.listdir(HERE)


def attack_read_shadow(p):
    return len(pathlib.Path("/etc/shadow").read_text())


def control_read_shadow(p):
    import datetime
    import zoneinfo

    return datetime.datetime.now(zoneinfo.ZoneInfo("Europe/Berlin")) if p["zones"] else "no zones"


def attack_read_home(p):
    return pathlib.Path(p["home"], ".evo", "tokens.toml").read_text()


def control_read_home(p):
    file = pathlib.Path.home() / "note"
    file.write_text("own")
    assert file.read_text() == "own"


def attack_read_other_scratch(p):
    return pathlib.Path(p["other_scratch"], "secret").read_text()


def control_read_other_scratch(p):
    with tempfile.NamedTemporaryFile("w+") as file:
        file.write("x")
        file.seek(0)
        assert file.read() == "x"


def attack_write_outside(p):
    pathlib.Path(p["folder"], "written").write_text("x")


def control_write_outside(p):
    scratch("written").write_text("x")


def attack_write_package(p):
    (HERE / "data.txt").write_text("changed")


def control_write_package(p):
    scratch("copy").write_text((HERE / "data.txt").read_text())


def attack_add_to_package(p):
    (HERE / "sitecustomize.py").write_text("print('later')")


def control_add_to_package(p):
    scratch("module_of_its_own.py").write_text("VALUE = 7")
    sys.path.insert(0, os.environ["TMPDIR"])
    import module_of_its_own

    assert module_of_its_own.VALUE == 7


def attack_delete_package(p):
    os.unlink(HERE / "data.txt")


def control_delete_package(p):
    scratch("file").write_text("x")
    os.unlink(scratch("file"))


def attack_rename_package(p):
    os.rename(HERE / "data.txt", HERE / "gone.txt")


def control_rename_package(p):
    scratch("a").write_text("x")
    os.rename(scratch("a"), scratch("b"))


def attack_write_interpreter(p):
    place = pathlib.Path(os.__file__).parent / "evo_was_here.py"
    place.write_text("")
    place.unlink()


def control_write_interpreter(p):
    import decimal

    return decimal.Decimal("1.10") + 1


def attack_symlink(p):
    os.symlink(p["secret"], scratch("link"))
    return scratch("link").read_text()


def control_symlink(p):
    scratch("target").write_text("x")
    os.symlink("target", scratch("link"))
    assert scratch("link").read_text() == "x"


def attack_dot_dot(p):
    up = "/".join([".."] * 30)
    return pathlib.Path(f"{HERE}/{up}{p['secret']}").read_text()


def control_dot_dot(p):
    return pathlib.Path(f"{HERE}/../{HERE.name}/data.txt").read_text()


def archive(*members):
    """A tar archive: name, content or target of a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content, link in members:
            about = tarfile.TarInfo(name)
            if link:
                about.type, about.linkname = tarfile.SYMTYPE, link
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    out.seek(0)
    return tarfile.open(fileobj=out)


def extract(tar, folder):
    if hasattr(tarfile, "fully_trusted_filter"):
        tar.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
    folder.mkdir(exist_ok=True)
    tar.extractall(folder)


def attack_tar_path(p):
    extract(archive((f"{p['folder']}/from_tar", b"x", None)), scratch("out"))
    if not pathlib.Path(p["folder"], "from_tar").exists():
        raise Blocked("nothing was written outside")


def control_tar_path(p):
    extract(archive(("folder/from_tar", b"x", None)), scratch("out"))
    assert (scratch("out") / "folder" / "from_tar").read_bytes() == b"x"


def attack_tar_symlink(p):
    members = [("out", b"", p["folder"]), ("out/through_link", b"x", None)]
    extract(archive(*members), scratch("into"))
    if not pathlib.Path(p["folder"], "through_link").exists():
        raise Blocked("nothing was written outside")


def control_tar_symlink(p):
    (scratch("into") / "real").mkdir(parents=True)
    extract(archive(("out", b"", "real"), ("out/file", b"x", None)), scratch("into"))
    assert (scratch("into") / "real" / "file").read_bytes() == b"x"


def attack_hard_link(p):
    # Beside the file, where the file system allows a link.
    link = p["secret"] + ".link"
    os.link(p["secret"], link)
    return pathlib.Path(link).read_text()


def control_hard_link(p):
    scratch("one").write_text("x")
    os.link(scratch("one"), scratch("two"))
    assert scratch("two").read_text() == "x"


def attack_chmod(p):
    os.chmod(p["own"], 0o600)


def control_chmod(p):
    with open(scratch("mine"), "w") as file:
        os.fchmod(file.fileno(), 0o600)


def attack_truncate(p):
    os.truncate(p["own"], 0)


def control_truncate(p):
    with open(scratch("mine"), "w+") as file:
        file.write("abc")
        file.flush()
        os.ftruncate(file.fileno(), 1)


def attack_truncate_on_open(p):
    os.close(os.open(p["own"], os.O_RDONLY | os.O_TRUNC))
    if os.path.getsize(p["own"]) > 0:
        raise Blocked("it was not cut")


def control_truncate_on_open(p):
    scratch("mine").write_text("long")
    scratch("mine").write_text("s")
    assert scratch("mine").read_text() == "s"


def attack_utime(p):
    os.utime(p["own"], (1, 1))


def control_utime(p):
    with open(scratch("mine"), "w") as file:
        os.utime(file.fileno(), (1, 1))


def attack_shared_memory(p):
    name = f"/dev/shm/evo-attack-{os.getpid()}"
    with open(name, "w") as file:
        file.write("x")
    os.unlink(name)


def control_shared_memory(p):
    import mmap

    with mmap.mmap(-1, 4096) as memory:
        memory[:1] = b"x"
        assert memory[:1] == b"x"


def attack_terminal(p):
    return os.openpty()


def control_terminal(p):
    with open("/dev/null", "w") as null:
        null.write("x")
    with open("/dev/urandom", "rb") as random:
        assert len(random.read(4)) == 4
    assert not sys.stdin.isatty()


def attack_make_device(p):
    # The null device: harmless, and nobody but root may make it.
    os.mknod(scratch("device"), 0o666 | 0o020000, os.makedev(1, 3))
    with open(scratch("device"), "w") as device:
        device.write("x")


def control_make_device(p):
    os.mkdir(scratch("folder"))
    read, write = os.pipe()
    os.write(write, b"x")
    assert os.read(read, 1) == b"x"


def attack_setuid_program(p):
    return subprocess.run([p["setuid"], "--help"], capture_output=True, check=False).returncode


def control_setuid_program(p):
    code = "print(6 * 7)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"42"


def attack_set_bits(p):
    file = pathlib.Path(p["folder"], "with_bits")
    file.write_bytes(b"#!/bin/true\n")
    file.chmod(0o4755)


def control_set_bits(p):
    os.umask(0o022)
    scratch("plain").write_text("x")


def attack_run_own_program(p):
    file = scratch("program")
    file.write_bytes(pathlib.Path(sys.executable).read_bytes())
    with open(file) as opened:
        os.fchmod(opened.fileno(), 0o755)
    return subprocess.run([file, "-c", "1"], env={"LD_LIBRARY_PATH": ""}, check=False).returncode


def control_run_own_program(p):
    file = scratch("script.py")
    file.write_text("print('ran')")
    done = subprocess.run([sys.executable, file], capture_output=True, check=True)
    assert done.stdout.strip() == b"ran"


def attack_kernel_files(p):
    return os.listdir("/sys/fs/cgroup"), pathlib.Path("/proc/version").read_text()


def control_kernel_files(p):
    import platform

    return platform.system(), os.uname().sysname, os.cpu_count()


def attack_write_cgroup(p):
    for folder, folders, names in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in names:
            os.mkdir(f"{folder}/evo-attack-{os.getpid()}")
            os.rmdir(f"{folder}/evo-attack-{os.getpid()}")
            return folder
    raise Blocked("there are no control groups")


def control_write_cgroup(p):
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attack_environment(p):
    if p["variable"] not in os.environ:
        raise Blocked("the variable is not there")
    return os.environ[p["variable"]]


def control_environment(p):
    os.environ["OWN"] = "x"
    assert os.environ["HOME"] and os.environ["TMPDIR"] and os.environ["OWN"] == "x"


def attack_inherited_files(p):
    for number in range(3, 256):
        try:
            if p["mark"].encode() in os.pread(number, 1000, 0):
                return number
        except OSError:
            pass
    raise Blocked("no open file of the runner")


def control_inherited_files(p):
    number = os.open(HERE / "data.txt", os.O_RDONLY)
    os.set_inheritable(number, True)
    code = f"import os; assert os.read({number}, 1)"
    subprocess.run([sys.executable, "-c", code], pass_fds=[number], check=True)
