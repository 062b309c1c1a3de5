import ctypes, errno, os, platform, socket, stat, sys
LIBC = ctypes.CDLL(None, use_errno=True)
# (x86_64, aarch64); None where the architecture has no such call.
NUMBERS = {
    "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clone": (56, 220), "clone3": (435, 435),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": (430, 430), "fsmount": (432, 432),
    "init_module": (175, 105), "inotify_add_watch": (254, 27), "inotify_init1": (294, 26),
    "io_uring_setup": (425, 425), "iopl": (172, None), "kexec_load": (246, 104),
    "keyctl": (250, 219), "memfd_secret": (447, 447), "modify_ldt": (154, None), "mount": (165, 40),
    "move_mount": (429, 429), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "reboot": (169, 142),
    "request_key": (249, 218), "sethostname": (170, 161), "setns": (308, 268), "splice": (275, 76), "swapon": (167, 224),
    "syslog": (103, 116), "tee": (276, 77), "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
}
ARM = platform.machine() == "aarch64"
def raw(number, *arguments):
    ctypes.set_errno(0)
    padded = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
    return "allowed" if LIBC.syscall(ctypes.c_long(number), *padded) != -1 else errno.errorcode[ctypes.get_errno()]
def call(name, *arguments):
    print(name, raw(NUMBERS[name][ARM], *(arguments or (0, 0, 0, 0, 0, 0))))
def attempt(name, action):
    try:
        action()
        print(name, "allowed")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
