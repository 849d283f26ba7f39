//! File attributes (chattr(1)): immutable and append-only objects, and what copy-up keeps.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FallocateFlags, IFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, XattrFlags, fallocate, ftruncate, ioctl_getflags, ioctl_setflags, lremovexattr,
    lsetxattr, open, renameat_with, utimensat,
};
use rustix::io::{Errno, Result};

use crate::common::{Sandbox, Tree, assert_errno};

mounted_tests! {
    [root userns user]: immutable_file, append_only_file, immutable_directory, append_only_directory;
    [root userns]: shown_and_unknown_letters, other_flags_are_upper_s, others_have_none;
    [root]: set_and_cleared, of_lower_layers, copied_up, extended_form, immutable_root, open_before;
}

const PROTECTING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Flags that keep the layers from being removed; cleared when it goes.
struct Chattr(Vec<PathBuf>);

impl Chattr {
    fn lower(s: &Sandbox, paths: &[(&str, IFlags)]) -> Self {
        let mut set = Self(Vec::new());
        for (path, flags) in paths {
            let path = s.lower().at(path);
            chattr(&path, *flags).unwrap();
            set.0.push(path);
        }
        set
    }

    /// Clears the flags and lets the layers be compared as they are then.
    fn clear(self, s: &mut Sandbox) {
        s.unmount();
        drop(self);
        s.forget_layers();
        s.mount();
    }
}

impl Drop for Chattr {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = chattr(path, IFlags::empty()) {
                eprintln!("{} stays as it is: {error}", path.display());
            }
        }
    }
}

fn handle(path: &Path) -> Result<std::os::fd::OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
}

/// Sets exactly these of the flags the tests use.
fn chattr(path: &Path, flags: IFlags) -> Result<()> {
    let file = handle(path)?;
    let used = PROTECTING | IFlags::SYNC | IFlags::NOATIME | IFlags::NODUMP;
    ioctl_setflags(&file, (ioctl_getflags(&file)? - used) | flags)
}

fn lsattr(path: impl AsRef<Path>) -> IFlags {
    let used = PROTECTING | IFlags::SYNC | IFlags::NOATIME | IFlags::NODUMP;
    ioctl_getflags(handle(path.as_ref()).unwrap()).unwrap() & used
}

/// What `overlay.protattr` says on `path` of upper.
fn protattr(s: &Sandbox, path: &str) -> Option<Vec<u8>> {
    s.upper().xattr(path, s.overlay_xattr("protattr"))
}

fn protect(s: &Sandbox, path: &str, letters: &str) {
    s.upper().set_xattr(path, s.overlay_xattr("protattr"), letters);
}

fn opened(m: &Tree, path: &str, flags: OFlags) -> Result<File> {
    open(m.at(path), flags, Mode::from_raw_mode(0o644)).map(File::from)
}

fn set_times(m: &Tree, path: &str, atime: i64, mtime: i64) -> Result<()> {
    let time = |nsec| Timespec { tv_sec: 7, tv_nsec: nsec };
    let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
    utimensat(CWD, m.at(path), &times, rustix::fs::AtFlags::empty())
}

/// What neither an immutable nor an append-only object allows.
#[track_caller]
fn assert_keeps_name_and_attributes(m: &Tree, path: &str) {
    let at = m.at(path);
    let (to, perm) = (m.at("elsewhere"), Errno::PERM);
    assert_errno(rustix::fs::rename(&at, &to), perm);
    let swap = renameat_with(CWD, m.at("other"), CWD, &at, RenameFlags::EXCHANGE);
    assert_errno(swap, perm);
    assert_errno(rustix::fs::chmod(&at, Mode::from_raw_mode(0o700)), perm);
    assert_errno(std::os::unix::fs::chown(&at, Some(0), None), perm);
    assert_errno(lsetxattr(&at, "user.new", b"", XattrFlags::empty()), perm);
    assert_errno(lremovexattr(&at, "user.none"), perm);
    assert_errno(set_times(m, path, 5, 5), perm);
    assert_errno(set_times(m, path, UTIME_NOW, UTIME_OMIT), perm);
}

#[track_caller]
fn assert_file_stays(m: &Tree, path: &str) {
    assert_keeps_name_and_attributes(m, path);
    assert_errno(rustix::fs::unlink(m.at(path)), Errno::PERM);
    assert_errno(rustix::fs::link(m.at(path), m.at("elsewhere")), Errno::PERM);
    assert_errno(rustix::fs::rename(m.at("other"), m.at(path)), Errno::PERM);
    assert_errno(opened(m, path, OFlags::WRONLY), Errno::PERM);
    assert_errno(opened(m, path, OFlags::RDWR), Errno::PERM);
    assert_errno(opened(m, path, OFlags::WRONLY | OFlags::TRUNC), Errno::PERM);
    assert_errno(opened(m, path, OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC), Errno::PERM);
    assert_errno(opened(m, path, OFlags::RDONLY | OFlags::TRUNC), Errno::PERM);
    let name = std::ffi::CString::new(m.at(path).as_os_str().as_bytes()).unwrap();
    assert_errno(crate::common::sys::truncate(&name, 0), Errno::PERM);
    opened(m, path, OFlags::RDONLY).unwrap();
}

fn immutable_file(s: &mut Sandbox) {
    s.lower().file("other", "").file("below", "");
    s.upper().file("f", "f").set_xattr("f", "user.old", "");
    protect(s, "f", "i");
    let m = s.mount();
    assert_file_stays(&m, "f");
    assert_errno(opened(&m, "f", OFlags::WRONLY | OFlags::APPEND), Errno::PERM);
    assert_errno(opened(&m, "f", OFlags::WRONLY | OFlags::CREATE), Errno::PERM);
    assert_errno(set_times(&m, "f", UTIME_NOW, UTIME_NOW), Errno::PERM);
    assert_eq!((m.text("f"), s.upper().names("")), ("f".into(), vec!["f".into()]));
}

fn append_only_file(s: &mut Sandbox) {
    s.lower().file("other", "");
    s.upper().file("f", "f");
    protect(s, "f", "a");
    let m = s.mount();
    assert_file_stays(&m, "f");
    set_times(&m, "f", UTIME_NOW, UTIME_NOW).unwrap();
    m.append("f", "g");
    let file = opened(&m, "f", OFlags::WRONLY | OFlags::APPEND).unwrap();
    assert_errno(ftruncate(&file, 0), Errno::PERM);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_errno(fallocate(&file, punch, 0, 1), Errno::PERM);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4096).unwrap();
    assert_eq!(m.text("f"), "fg");
}

fn immutable_directory(s: &mut Sandbox) {
    s.lower().file("d/low", "l").dir("d/sub").file("other", "").dir("empty");
    s.upper().file("d/up", "u");
    protect(s, "d", "i");
    let m = s.mount();
    assert_keeps_name_and_attributes(&m, "d");
    assert_errno(rustix::fs::rmdir(m.at("d")), Errno::PERM);
    assert_errno(rustix::fs::rename(m.at("empty"), m.at("d")), Errno::PERM);
    assert_errno(opened(&m, "d/new", OFlags::WRONLY | OFlags::CREATE), Errno::PERM);
    assert_errno(rustix::fs::mkdir(m.at("d/new"), Mode::RWXU), Errno::PERM);
    assert_errno(rustix::fs::mkdir(m.at("d/sub"), Mode::RWXU), Errno::EXIST);
    assert_errno(rustix::fs::symlink("to", m.at("d/new")), Errno::PERM);
    assert_errno(rustix::fs::link(m.at("other"), m.at("d/new")), Errno::PERM);
    assert_errno(rustix::fs::rename(m.at("other"), m.at("d/new")), Errno::PERM);
    for name in ["d/low", "d/up"] {
        assert_errno(rustix::fs::unlink(m.at(name)), Errno::PERM);
        assert_errno(rustix::fs::rename(m.at(name), m.at("out")), Errno::PERM);
        m.append(name, "+");
        m.chmod(name, 0o640);
    }
    assert_errno(rustix::fs::rmdir(m.at("d/sub")), Errno::PERM);
    m.write("d/sub/new", "");
    assert_eq!((m.text("d/low"), m.text("d/up")), ("l+".into(), "u+".into()));
    assert_eq!(s.upper().names("d"), ["low", "sub", "up"]);
}

fn append_only_directory(s: &mut Sandbox) {
    s.lower().file("d/low", "l").file("other", "");
    s.upper().file("d/up", "u");
    protect(s, "d", "a");
    let m = s.mount();
    assert_keeps_name_and_attributes(&m, "d");
    m.write("d/new", "n");
    m.mkdir("d/dir");
    m.link("other", "d/link");
    m.rename("other", "d/moved");
    for name in ["d/low", "d/up", "d/new", "d/moved"] {
        assert_errno(rustix::fs::unlink(m.at(name)), Errno::PERM);
        assert_errno(rustix::fs::rename(m.at(name), m.at("out")), Errno::PERM);
        assert_errno(rustix::fs::rename(m.at(name), m.at("d/out")), Errno::PERM);
    }
    m.write("file", "");
    assert_errno(rustix::fs::rename(m.at("file"), m.at("d/low")), Errno::PERM);
    s.kernel_splits_links();
}

fn shown_and_unknown_letters(s: &mut Sandbox) {
    s.upper().file("ia", "").file("bad", "").file("empty", "").dir("d");
    for (path, letters) in [("ia", "ia"), ("bad", "ix"), ("empty", ""), ("d", "a")] {
        protect(s, path, letters);
    }
    let m = s.mount();
    let flags = ["ia", "bad", "empty", "d"].map(|path| lsattr(m.at(path)));
    assert_eq!(flags, [PROTECTING, IFlags::empty(), IFlags::empty(), IFlags::APPEND]);
    m.write("bad", "can be written");
    m.unlink("empty");
}

fn other_flags_are_upper_s(s: &mut Sandbox) {
    s.lower().file("f", "f").dir("d");
    let m = s.mount();
    for path in ["f", "d"] {
        chattr(&m.at(path), IFlags::NODUMP | IFlags::NOATIME).unwrap();
        assert_eq!(lsattr(s.upper().at(path)), IFlags::NODUMP | IFlags::NOATIME);
        chattr(&m.at(path), IFlags::NODUMP).unwrap();
        assert_eq!((lsattr(m.at(path)), protattr(s, path)), (IFlags::NODUMP, None));
    }
    assert_eq!(m.text("f"), "f");
}

fn others_have_none(s: &mut Sandbox) {
    s.lower().fifo("p");
    let m = s.mount();
    assert_errno(ioctl_getflags(handle(&m.at("p")).unwrap()), Errno::NOTTY);
    assert!(!s.upper().exists("p"));
}

fn set_and_cleared(s: &mut Sandbox) {
    s.lower().file("low", "l").dir("d").file("other", "");
    let m = s.mount();
    m.write("new", "n");
    for (path, flags, letters) in
        [("low", IFlags::IMMUTABLE, "i"), ("new", PROTECTING, "ai"), ("d", IFlags::APPEND, "a")]
    {
        chattr(&m.at(path), flags).unwrap();
        assert_eq!((protattr(s, path).unwrap(), lsattr(m.at(path))), (letters.into(), flags));
        assert_eq!(lsattr(s.upper().at(path)), IFlags::empty());
        assert_keeps_name_and_attributes(&m, path);
    }
    let m = s.remount();
    assert_file_stays(&m, "low");
    assert_file_stays(&m, "new");
    for path in ["low", "new", "d"] {
        chattr(&m.at(path), IFlags::empty()).unwrap();
        assert_eq!((protattr(s, path), lsattr(m.at(path))), (None, IFlags::empty()));
        m.chmod(path, 0o750);
    }
    m.append("low", "+");
}

fn of_lower_layers(s: &mut Sandbox) {
    s.lower().file("i", "").file("a", "a").file("d/f", "f").file("other", "");
    let flags = [("i", IFlags::IMMUTABLE), ("a", IFlags::APPEND), ("d", IFlags::IMMUTABLE)];
    let chattr_of_lower = Chattr::lower(s, &flags);
    let m = s.mount();
    for (path, flags) in flags {
        assert_eq!(lsattr(m.at(path)), flags);
    }
    assert_file_stays(&m, "i");
    assert_file_stays(&m, "a");
    assert_keeps_name_and_attributes(&m, "d");
    assert_errno(rustix::fs::unlink(m.at("d/f")), Errno::PERM);
    assert_errno(opened(&m, "d/new", OFlags::WRONLY | OFlags::CREATE), Errno::PERM);
    assert_eq!(s.upper().names(""), [""; 0], "nothing is copied up for it");
    m.append("a", "+");
    m.append("d/f", "+");
    assert_eq!((protattr(s, "a"), protattr(s, "d")), (Some("a".into()), Some("i".into())));
    assert_eq!(
        (lsattr(s.upper().at("a")), lsattr(s.upper().at("d"))),
        (IFlags::empty(), IFlags::empty())
    );
    assert_file_stays(&m, "a");
    assert_errno(rustix::fs::unlink(m.at("d/f")), Errno::PERM);
    assert_eq!((m.text("a"), m.text("d/f")), ("a+".into(), "f+".into()));
    chattr_of_lower.clear(s);
}

fn copied_up(s: &mut Sandbox) {
    s.lower().file("f", "f").file("d/g", "g").file("big", vec![1; 3 << 20]);
    let kept = IFlags::SYNC | IFlags::NOATIME;
    for path in ["f", "d", "big"] {
        chattr(&s.lower().at(path), kept | IFlags::NODUMP).unwrap();
    }
    let m = s.mount();
    m.append("f", "+");
    m.append("d/g", "+");
    m.append("big", "+");
    for path in ["f", "d", "big"] {
        assert_eq!(lsattr(s.upper().at(path)), kept, "{path}");
    }
    assert_eq!(lsattr(s.upper().at("d/g")) - kept, IFlags::empty());
}

fn extended_form(s: &mut Sandbox) {
    s.lower().file("f", "f");
    let m = s.mount();
    let path = m.at("f");
    let attr = |what: &str| {
        let status = std::process::Command::new("python3")
            .args(["-c", EXTENDED, path.to_str().unwrap(), what])
            .status();
        status.unwrap().code().unwrap()
    };
    assert_eq!(attr("0"), 0);
    // FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND, FS_XFLAG_NODUMP.
    assert_eq!(attr("0x98"), 0x98);
    assert_eq!(
        (protattr(s, "f").unwrap(), lsattr(&path)),
        ("ai".into(), PROTECTING | IFlags::NODUMP)
    );
    assert_file_stays(&m_with_other(&m), "f");
    assert_eq!(attr("0x80"), 0x80);
    assert_eq!((protattr(s, "f"), lsattr(s.upper().at("f"))), (None, IFlags::NODUMP));
}

/// Sets the flags by `FS_IOC_FSSETXATTR` and gives those of `FS_IOC_FSGETXATTR`.
const EXTENDED: &str = "
import fcntl, struct, sys
file = open(sys.argv[1])
attr = bytearray(fcntl.ioctl(file, 0x801c581f, bytes(28)))
attr[:4] = struct.pack('I', int(sys.argv[2], 0))
fcntl.ioctl(file, 0x401c5820, bytes(attr))
sys.exit(struct.unpack('I', fcntl.ioctl(file, 0x801c581f, bytes(28))[:4])[0])
";

fn m_with_other(m: &Tree) -> Tree {
    m.write("other", "");
    Tree::new(m.path())
}

fn immutable_root(s: &mut Sandbox) {
    s.lower().file("f", "f");
    let m = s.mount();
    chattr(m.path(), IFlags::IMMUTABLE).unwrap();
    assert_errno(opened(&m, "new", OFlags::WRONLY | OFlags::CREATE), Errno::PERM);
    assert_errno(rustix::fs::unlink(m.at("f")), Errno::PERM);
    m.append("f", "+");
    assert_eq!(protattr(s, "").unwrap(), b"i");
    // At the next mount the kernel does not look for it on the root.
    let m = s.remount();
    assert_eq!(lsattr(m.path()), IFlags::empty());
    m.unlink("f");
}

fn open_before(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("g", "lower");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDWR);
    let mut other = m.open("g", OFlags::RDWR);
    chattr(&m.at("f"), IFlags::IMMUTABLE).unwrap();
    chattr(&m.at("g"), IFlags::APPEND).unwrap();
    std::io::Write::write_all(&mut file, b"still").unwrap();
    std::io::Write::write_all(&mut other, b"still").unwrap();
    ftruncate(&file, 3).unwrap();
    assert_errno(ftruncate(&other, 3), Errno::PERM);
    assert_errno(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 9), Errno::PERM);
    assert_eq!((m.text("f"), m.text("g")), ("sti".into(), "still".into()));
    for path in ["f", "g"] {
        chattr(&m.at(path), IFlags::empty()).unwrap();
    }
}
