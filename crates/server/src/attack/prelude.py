import ctypes, errno, os, platform, socket, stat, sys
LIBC = ctypes.CDLL(None, use_errno=True)
# (x86_64, aarch64); None where the architecture has no such call.
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220), "clone3": (435, 435),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "init_module": (175, 105), "inotify_add_watch": (254, 27), "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "ioperm": (173, None), "iopl": (172, None), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "landlock_create_ruleset": (444, 444), "listmount": (458, 458),
    "lookup_dcookie": (212, 18), "lsm_set_self_attr": (460, 460), "mbind": (237, 235), "memfd_secret": (447, 447),
    "migrate_pages": (256, 238), "modify_ldt": (154, None), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "prctl": (157, 167), "process_madvise": (440, 440),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218), "rt_sigqueueinfo": (129, 138),
    "seccomp": (317, 277), "set_mempolicy": (238, 237), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "socket": (41, 198), "splice": (275, 76),
    "statmount": (457, 457), "swapoff": (168, 225), "swapon": (167, 224), "sync": (162, 81), "syncfs": (306, 267),
    "syslog": (103, 116), "tee": (276, 77), "tgkill": (234, 131), "tkill": (200, 130), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58), "vmsplice": (278, 75),
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
def make_writable(mapping):
    import mmap
    # A buffer of a read-only mapping has no address that ctypes gives away: /proc/self/maps has it.
    start = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "/usr/bin/env" in line)
    if LIBC.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_WRITE) == -1:
        raise OSError(ctypes.get_errno(), "mprotect")
def write_by_memory(held):
    import mmap
    mapping = mmap.mmap(held, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    start = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "/usr/bin/env" in line)
    memory = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(memory, mapping[:1], start)
