"""The machine whose power is cut: Debian's kernel, busybox and one program, emulated, with a disk that outlives it."""

import gzip
import lzma
import os
import platform
import re
import shutil
import subprocess
import time

from .common import CACHE, ROOT, Failure, free_port, say, tail, tool

KERNEL = CACHE / "kernel"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
DEBIAN_PACKAGES = "qemu-system-x86 busybox-static cpio e2fsprogs"
DISK_SIZE = 2 << 30
PATIENCE = 120

# In the order in which they are loaded. What a kernel has built in is not there as a file and is passed over.
MODULES = """failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk
virtio_net crc16 libcrc32c crc32c-intel crc32c_generic mbcache jbd2 ext4""".split()

INIT = """#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin:/app
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
for module in $(cat /modules/order); do insmod "/modules/$module" 2>/dev/null; done
mount -t ext4 /dev/vda /data || { echo "guest: the disk cannot be mounted"; poweroff -f; }
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
"""


def missing():
    """What the guest needs and this machine does not have."""
    found = []
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        found.append("Linux on x86-64 is needed")
    for name in ("qemu-system-x86_64", "busybox", "cpio", "mkfs.ext4"):
        if not tool(name):
            found.append(f"{name} is missing (apt install {DEBIAN_PACKAGES})")
            break
    if not (KERNEL / "vmlinuz").exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            found.append("the guest's kernel comes from Debian's packages, and apt-get is missing")
        elif not kernel_package():
            found.append(f"apt does not know {KERNEL_PACKAGE} (apt-get update)")
    return found


def kernel_package():
    """The name of the package that holds the kernel itself."""
    shown = subprocess.run(["apt-cache", "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=False)
    names = re.findall(r"Depends: (linux-image-\S+)", shown.stdout)
    return names[0] if names else None


def prepare_kernel():
    if (KERNEL / "vmlinuz").exists():
        return
    package = kernel_package()
    say(f"getting the guest's kernel, {package}")
    partial = KERNEL.with_name("kernel.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    got = subprocess.run(["apt-get", "download", package], cwd=partial, capture_output=True, text=True, check=False)
    archives = list(partial.glob("*.deb"))
    if got.returncode != 0 or not archives:
        raise Failure(f"apt-get download {package} failed: {got.stderr.strip()}")
    subprocess.run(["dpkg", "-x", archives[0], partial / "files"], check=True)
    shutil.copy(next((partial / "files" / "boot").glob("vmlinuz-*")), partial / "vmlinuz")
    archives[0].unlink()
    shutil.rmtree(KERNEL, ignore_errors=True)
    partial.rename(KERNEL)


def prepare(work, name, program, files, script):
    """Makes an empty disk and the guest's first file system: busybox, modules, the program under that name with its
    libraries, further files in /app, and the lines of the shell that run it."""
    prepare_kernel()
    root = work / "initramfs"
    shutil.rmtree(root, ignore_errors=True)
    for folder in "bin dev proc sys data app modules tmp etc".split():
        (root / folder).mkdir(parents=True)
    shutil.copy(tool("busybox"), root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    copy_modules(root / "modules")
    shutil.copy(program, root / "app" / name)
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"/\S+", linked):
        copy = root / library.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), copy)
    for file, text in files.items():
        (root / "app" / file).write_text(text)
    init = root / "init"
    init.write_text(f'{INIT}{script}\necho "guest: {name} ended with $?"\npoweroff -f\n')
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True
    )
    (work / "initrd.gz").write_bytes(gzip.compress(archive.stdout, 1))
    with (work / "disk.img").open("wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run([tool("mkfs.ext4"), "-q", "-F", work / "disk.img"], check=True)


def copy_modules(folder):
    files = {path.name: path for path in (KERNEL / "files").rglob("*.ko*")}
    order = []
    for module in MODULES:
        name = f"{module}.ko"
        if name in files:
            shutil.copy(files[name], folder / name)
        elif f"{name}.xz" in files:
            (folder / name).write_bytes(lzma.decompress(files[f"{name}.xz"].read_bytes()))
        else:
            continue
        order.append(name)
    (folder / "order").write_text("\n".join(order) + "\n")


class Guest:
    """The machine. `inner_ports` of it can be reached from here, by the same numbers on every boot."""

    def __init__(self, work, inner_ports, answers):
        self.work, self.answers = work, answers
        self.ports = {inner: free_port() for inner in inner_ports}
        self.process, self.boots = None, 0

    def start(self):
        self.boots += 1
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{outer}-:{inner}" for inner, outer in self.ports.items())
        with self.console().open("wb") as output:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "1"]
                + ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
                + ["-kernel", KERNEL / "vmlinuz", "-initrd", self.work / "initrd.gz"]
                # On a busy host the emulated timer can be too late for the kernel's check of it, which then panics.
                + ["-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
                + ["-drive", f"file={self.work / 'disk.img'},if=virtio,format=raw,cache=writeback"]
                + ["-netdev", f"user,id=net,restrict=on{forwards}", "-device", "virtio-net-pci,netdev=net"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def console(self):
        return self.work / f"console-{self.boots}.log"

    def boot(self):
        """Starts it and waits until it answers; seconds."""
        self.start()
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE and self.runs():
            if self.answers(self):
                return time.monotonic() - begun
            time.sleep(0.25)
        raise Failure(f"the guest did not come up; {self.last_words()}")

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def last_words(self):
        return f"{self.console().relative_to(ROOT)} ends with:\n{tail(self.console())}"

    def cut(self):
        """The power is gone: no shutdown, no flush, nothing."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
