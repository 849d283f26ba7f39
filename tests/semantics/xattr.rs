//! Extended attributes and access control lists.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{XattrFlags, lgetxattr, lremovexattr, lsetxattr};
use rustix::io::{self, Errno};

use crate::common::{
    Caller, Context, Sandbox, Tree, assert_errno, caller::ALICE, caller::BOB, caller::STAFF,
};

mounted_tests! {
    [root userns user]:
        set_get_list_remove, flags_decide, values_of_all_sizes, names_of_any_bytes, missing_names, short_buffers;
    [root userns]:
        own_names_are_escaped, own_names_are_hidden, own_names_take_room, escaped_names_that_are_too_long,
        directories_and_the_root, user_names_on_other_types,
        access_needs_permission, access_acl_follows_chmod, access_acl_grants_and_denies, acl_on_lower_copies_up,
        default_acl_on_files_is_refused, removing_an_acl, acl_of_another_is_refused, invalid_acls,
        acl_chmod_keeps_named_entries, setfacl_and_getfacl;
    [root]: trusted_names, other_overlay_namespace_passes_through, user_sees_no_trusted_names;
}

fn get(m: &Tree, path: &str, name: &str, buffer: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0; buffer];
    let len = lgetxattr(m.at(path), name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn set_get_list_remove(s: &mut Sandbox) {
    s.lower().file("low", "").set_xattr("low", "user.old", "1");
    let m = s.mount();
    m.write("up", "");
    for name in ["low", "up"] {
        m.set_xattr(name, "user.new", "value");
        m.set_xattr(name, "user.new", "other");
        assert_eq!(m.xattr(name, "user.new").unwrap(), b"other");
        assert_eq!(s.upper().xattr(name, "user.new").unwrap(), b"other");
        m.remove_xattr(name, "user.new");
        assert_eq!(m.xattr(name, "user.new"), None);
    }
    assert_eq!(m.xattr_names("low"), ["user.old"]);
    m.remove_xattr("low", "user.old");
    assert_eq!(m.xattr_names("low"), [""; 0]);
    assert_eq!(s.remount().xattr_names("low"), [""; 0]);
}

fn flags_decide(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", "user.a", "1");
    let m = s.mount();
    assert_errno(lsetxattr(m.at("f"), "user.a", b"2", XattrFlags::CREATE), Errno::EXIST);
    assert_errno(lsetxattr(m.at("f"), "user.b", b"2", XattrFlags::REPLACE), Errno::NODATA);
    lsetxattr(m.at("f"), "user.a", b"2", XattrFlags::REPLACE).unwrap();
    lsetxattr(m.at("f"), "user.b", b"3", XattrFlags::CREATE).unwrap();
    assert_eq!(
        (m.xattr("f", "user.a").unwrap(), m.xattr("f", "user.b").unwrap()),
        (b"2".into(), b"3".into())
    );
}

fn values_of_all_sizes(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    for size in [0, 1, 255, 256, 1000, 3000] {
        let value = vec![b'v'; size];
        m.set_xattr("f", "user.size", &value);
        assert_eq!(m.xattr("f", "user.size").unwrap(), value);
        assert_eq!(get(&m, "f", "user.size", size.max(1)).unwrap(), value);
    }
    let huge = vec![0; 65_537];
    assert_errno(lsetxattr(m.at("f"), "user.huge", &huge, XattrFlags::empty()), Errno::TOOBIG);
    let full = lsetxattr(m.at("f"), "user.full", &huge[..65_536], XattrFlags::empty());
    let native = lsetxattr(s.upper().at("f"), "user.full", &huge[..65_536], XattrFlags::empty());
    assert_eq!(full, native, "the upper file system decides");
}

fn names_of_any_bytes(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let longest = format!("user.{}", "n".repeat(250));
    let names: [&[u8]; 4] = [b"user.\xff\xfe", b"user.a b", b"user.new\nline", longest.as_bytes()];
    for name in names {
        m.set_xattr("f", name, name);
        assert_eq!(m.xattr("f", name).unwrap(), name);
        assert_eq!(s.upper().xattr("f", name).unwrap(), name);
    }
    let mut expected = names.map(|name| name.escape_ascii().to_string());
    expected.sort();
    assert_eq!(m.xattr_names("f"), expected);
    let too_long = format!("user.{}", "n".repeat(251));
    assert_errno(lsetxattr(m.at("f"), &too_long, b"", XattrFlags::empty()), Errno::RANGE);
}

fn missing_names(s: &mut Sandbox) {
    s.lower().file("f", "").file("gone", "");
    let m = s.mount();
    m.unlink("gone");
    assert_errno(get(&m, "f", "user.none", 10), Errno::NODATA);
    assert_errno(lremovexattr(m.at("f"), "user.none"), Errno::NODATA);
    assert_errno(get(&m, "gone", "user.none", 10), Errno::NOENT);
    assert_errno(lsetxattr(m.at("f"), "nonsense", b"", XattrFlags::empty()), Errno::OPNOTSUPP);
    assert_errno(get(&m, "f", "nonsense.a", 10), Errno::OPNOTSUPP);
    assert_errno(lsetxattr(m.at("f"), "user.", b"", XattrFlags::empty()), Errno::INVAL);
}

fn short_buffers(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", "user.a", "12345");
    let m = s.mount();
    assert_errno(get(&m, "f", "user.a", 4), Errno::RANGE);
    assert_eq!(get(&m, "f", "user.a", 5).unwrap(), b"12345");
    assert_eq!(rustix::fs::lgetxattr_query(m.at("f"), "user.a").unwrap(), 5);
    let mut list = [0; 6];
    assert_errno(rustix::fs::llistxattr(m.at("f"), &mut list), Errno::RANGE);
    assert_eq!(rustix::fs::llistxattr_query(m.at("f")).unwrap(), "user.a\0".len());
}

/// Who asks for the length of the list is told that of the stored one, and must have room for it.
fn own_names_take_room(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", "user.a", "");
    let m = s.mount();
    m.chmod("f", 0o600);
    let stored = rustix::fs::llistxattr_query(s.upper().at("f")).unwrap();
    assert!(stored > "user.a\0".len());
    assert_eq!(rustix::fs::llistxattr_query(m.at("f")).unwrap(), stored);
    let mut list = vec![0; stored];
    assert_errno(rustix::fs::llistxattr(m.at("f"), &mut list[1..]), Errno::RANGE);
    assert_eq!(rustix::fs::llistxattr(m.at("f"), &mut list[..]).unwrap(), "user.a\0".len());
}

fn escaped_names_that_are_too_long(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let of_length = |len: usize| format!("{:n<len$}", s.overlay_xattr(""));
    let (fits, long) = (of_length(247), of_length(248));
    for name in [&long, &of_length(255)] {
        assert_errno(get(&m, "f", name, 9), Errno::OPNOTSUPP);
        let set = rustix::fs::lsetxattr(m.at("f"), name, b"1", XattrFlags::empty());
        assert_errno(set, Errno::OPNOTSUPP);
        assert_errno(rustix::fs::lremovexattr(m.at("f"), name), Errno::OPNOTSUPP);
    }
    assert!(!s.upper().exists("f"));
    m.set_xattr("f", &fits, "1");
    assert_eq!(get(&m, "f", &fits, 9).unwrap(), b"1");
}

/// Overlay's own prefix, set through the mount, is stored one level down; nesting works.
fn own_names_are_escaped(s: &mut Sandbox) {
    s.lower().dir("d").file("d/f", "");
    let m = s.mount();
    let (name, stored) = (s.overlay_xattr("opaque"), s.overlay_xattr("overlay.opaque"));
    m.set_xattr("d", &name, "y");
    assert_eq!(m.xattr("d", &name).unwrap(), b"y");
    assert_eq!(m.xattr_names("d"), [name.as_str()]);
    assert_eq!(s.upper().xattr("d", &stored).unwrap(), b"y");
    assert_eq!(s.upper().xattr("d", &name), None);
    assert_eq!(m.names("d"), ["f"]);
    // Its prefix leaves less room for a name.
    let long = |len: usize| format!("{name:l<len$}");
    m.set_xattr("d", long(247), "l");
    m.remove_xattr("d", long(247));
    let too_long = lsetxattr(m.at("d"), long(248), b"l", XattrFlags::empty());
    assert_errno(too_long, Errno::OPNOTSUPP);
    assert_errno(get(&m, "d", &long(255), 10), Errno::OPNOTSUPP);
    m.set_xattr("d", &stored, "z");
    assert_eq!(s.upper().xattr("d", s.overlay_xattr("overlay.overlay.opaque")).unwrap(), b"z");
    assert_eq!(m.xattr("d", &stored).unwrap(), b"z");
    m.remove_xattr("d", &name);
    assert_eq!(m.xattr_names("d"), [stored.as_str()]);
    assert_eq!(s.remount().names("d"), ["f"]);
}

fn own_names_are_hidden(s: &mut Sandbox) {
    let names = ["origin", "impure", "opaque", "uuid", "protattr", "whatever"];
    s.upper().file("f", "").set_xattr("f", "user.seen", "1");
    for name in &names[3..] {
        s.upper().set_xattr("f", s.overlay_xattr(name), "");
    }
    let m = s.mount();
    assert_eq!(m.xattr_names("f"), ["user.seen"]);
    for name in names {
        assert_eq!(m.xattr("f", s.overlay_xattr(name)), None);
        assert_errno(lremovexattr(m.at("f"), s.overlay_xattr(name)), Errno::NODATA);
    }
}

fn trusted_names(s: &mut Sandbox) {
    s.lower().file("f", "").symlink("t", "l").fifo("p").set_xattr("f", "trusted.low", "1");
    let m = s.mount();
    for path in ["f", "l", "p"] {
        m.set_xattr(path, "trusted.a", "1");
        assert_eq!(m.xattr(path, "trusted.a").unwrap(), b"1");
        assert_eq!(s.upper().xattr(path, "trusted.a").unwrap(), b"1");
    }
    assert_eq!(m.xattr_names("f"), ["trusted.a", "trusted.low"]);
}

fn user_sees_no_trusted_names(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", "trusted.a", "1").set_xattr("f", "user.b", "2");
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_eq!(m.xattr_names("f"), ["user.b"]);
        assert_errno(get(&m, "f", "trusted.a", 10), Errno::NODATA);
        assert_errno(lsetxattr(m.at("f"), "trusted.c", b"", XattrFlags::empty()), Errno::PERM);
    });
}

fn other_overlay_namespace_passes_through(s: &mut Sandbox) {
    assert_eq!(s.context(), Context::root);
    s.lower().dir("d").file("d/f", "").set_xattr("d", "user.overlay.opaque", "y");
    s.upper().dir("d").set_xattr("d", "user.overlay.opaque", "y");
    let m = s.mount();
    assert_eq!(m.names("d"), ["f"], "only trusted.overlay. means something here");
    assert_eq!(m.xattr("d", "user.overlay.opaque").unwrap(), b"y");
    m.set_xattr("d/f", "user.overlay.origin", "1");
    assert_eq!(s.upper().xattr("d/f", "user.overlay.origin").unwrap(), b"1");
}

fn directories_and_the_root(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    for path in ["", "d"] {
        m.set_xattr(path, "user.a", "1");
        assert_eq!(m.xattr(path, "user.a").unwrap(), b"1");
        assert_eq!(m.xattr_names(path), ["user.a"]);
        assert_eq!(s.upper().xattr(path, "user.a").unwrap(), b"1");
    }
}

fn user_names_on_other_types(s: &mut Sandbox) {
    s.lower().symlink("t", "l").fifo("p");
    let m = s.mount();
    for path in ["l", "p"] {
        assert_errno(lsetxattr(m.at(path), "user.a", b"1", XattrFlags::empty()), Errno::PERM);
        assert_errno(lremovexattr(m.at(path), "user.a"), Errno::PERM);
        assert_errno(get(&m, path, "user.a", 10), Errno::NODATA);
    }
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn access_needs_permission(s: &mut Sandbox) {
    s.lower().file("f", "").chmod("f", 0o644).set_xattr("f", "user.a", "1").file("closed", "");
    s.lower().chmod("closed", 0o600).set_xattr("closed", "user.a", "1");
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_eq!(m.xattr("f", "user.a").unwrap(), b"1");
        assert_errno(lsetxattr(m.at("f"), "user.a", b"2", XattrFlags::empty()), Errno::ACCESS);
        assert_errno(lremovexattr(m.at("f"), "user.a"), Errno::ACCESS);
        assert_errno(get(&m, "closed", "user.a", 10), Errno::ACCESS);
    });
}

/// An ACL in the kernel's xattr form: user, named users, group, mask, other.
fn acl(user: u16, named: &[(u32, u16)], group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let mut entries = vec![(0x01, user, none)];
    entries.extend(named.iter().map(|(id, permissions)| (0x02, *permissions, *id)));
    entries.extend([(0x04, group, none), (0x10, mask, none), (0x20, other, none)]);
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&u16::to_le_bytes(tag));
        bytes.extend_from_slice(&u16::to_le_bytes(permissions));
        bytes.extend_from_slice(&u32::to_le_bytes(id));
    }
    bytes
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn access_acl_follows_chmod(s: &mut Sandbox) {
    s.lower().file("f", "").chmod("f", 0o640);
    let m = s.mount();
    m.set_xattr("f", ACCESS, acl(6, &[(ALICE, 7)], 4, 5, 4));
    assert_eq!(m.mode("f"), 0o654, "the group bits show the mask");
    m.chmod("f", 0o600);
    assert_eq!(m.xattr("f", ACCESS).unwrap(), acl(6, &[(ALICE, 7)], 4, 0, 0));
    m.chmod("f", 0o777);
    assert_eq!(s.upper().xattr("f", ACCESS).unwrap(), acl(7, &[(ALICE, 7)], 4, 7, 7));
    assert_eq!(s.upper().mode("f"), 0o777);
}

fn access_acl_grants_and_denies(s: &mut Sandbox) {
    s.lower().file("f", "x").chmod("f", 0o600).set_xattr(
        "f",
        ACCESS,
        acl(6, &[(ALICE, 6), (BOB, 0)], 0, 6, 4),
    );
    let m = s.mount();
    Caller::user(ALICE).run(|| m.append("f", "+alice"));
    Caller::user(BOB).run(|| assert_errno(std::fs::read(m.at("f")), Errno::ACCESS));
    Caller::user(STAFF).run(|| assert_eq!(m.text("f"), "x+alice"));
    m.set_xattr("f", ACCESS, acl(6, &[(ALICE, 0), (BOB, 4)], 0, 4, 0));
    Caller::user(BOB).run(|| assert_eq!(m.text("f"), "x+alice"));
    Caller::user(ALICE).run(|| assert_errno(std::fs::read(m.at("f")), Errno::ACCESS));
    Caller::user(STAFF).run(|| assert_errno(std::fs::read(m.at("f")), Errno::ACCESS));
}

fn acl_on_lower_copies_up(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d");
    let m = s.mount();
    m.set_xattr("f", ACCESS, acl(6, &[(ALICE, 4)], 4, 4, 4));
    m.set_xattr("d", DEFAULT, acl(7, &[(BOB, 6)], 5, 7, 5));
    assert_eq!(s.upper().xattr("f", ACCESS).unwrap(), acl(6, &[(ALICE, 4)], 4, 4, 4));
    assert_eq!(s.upper().xattr("d", DEFAULT).unwrap(), acl(7, &[(BOB, 6)], 5, 7, 5));
    m.mkdir("d/sub");
    assert_eq!(m.xattr("d/sub", DEFAULT).unwrap(), acl(7, &[(BOB, 6)], 5, 7, 5));
    let m = s.remount();
    assert_eq!(m.xattr_names("d/sub"), [ACCESS, DEFAULT]);
}

fn default_acl_on_files_is_refused(s: &mut Sandbox) {
    s.lower().file("f", "").symlink("f", "l");
    let m = s.mount();
    let value = acl(6, &[], 4, 4, 4);
    assert_errno(lsetxattr(m.at("f"), DEFAULT, &value, XattrFlags::empty()), Errno::ACCESS);
    assert_errno(lsetxattr(m.at("l"), ACCESS, &value, XattrFlags::empty()), Errno::OPNOTSUPP);
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn removing_an_acl(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", ACCESS, acl(6, &[(ALICE, 4)], 4, 4, 0));
    let m = s.mount();
    m.remove_xattr("f", ACCESS);
    assert_eq!(m.xattr_names("f"), [""; 0]);
    assert_eq!(
        s.upper().xattr_names("f").iter().filter(|name| name.starts_with("system.")).count(),
        0
    );
    Caller::user(ALICE).run(|| assert_errno(std::fs::read(m.at("f")), Errno::ACCESS));
}

fn acl_of_another_is_refused(s: &mut Sandbox) {
    s.lower().file("f", "").chmod("f", 0o666);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        let value = acl(6, &[(ALICE, 7)], 4, 7, 4);
        assert_errno(lsetxattr(m.at("f"), ACCESS, &value, XattrFlags::empty()), Errno::PERM);
        assert_errno(lremovexattr(m.at("f"), ACCESS), Errno::PERM);
    });
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn invalid_acls(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let set = |value: &[u8]| lsetxattr(m.at("f"), ACCESS, value, XattrFlags::empty());
    assert_errno(set(b"\x02\0\0\0\x01"), Errno::INVAL);
    assert_errno(set(b"\x03\0\0\0"), Errno::OPNOTSUPP);
    let twice = acl(6, &[(ALICE, 4), (ALICE, 4)], 4, 4, 4);
    let got = set(&twice);
    s.scratch().file("native", "");
    let native = lsetxattr(s.scratch().at("native"), ACCESS, &twice, XattrFlags::empty());
    assert_eq!(got, native, "a user named twice is judged as natively");
}

fn acl_chmod_keeps_named_entries(s: &mut Sandbox) {
    s.lower().file("f", "").set_xattr("f", ACCESS, acl(6, &[(ALICE, 6), (BOB, 4)], 4, 6, 0));
    let m = s.mount();
    std::fs::set_permissions(m.at("f"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(m.xattr("f", ACCESS).unwrap(), acl(6, &[(ALICE, 6), (BOB, 4)], 4, 4, 4));
    Caller::user(ALICE).run(|| assert_errno(std::fs::write(m.at("f"), ""), Errno::ACCESS));
}

fn setfacl_and_getfacl(s: &mut Sandbox) {
    s.lower().dir("d").file("d/f", "").chmod("d", 0o755).chmod("d/f", 0o644);
    let m = s.mount();
    let run = |program: &str, arguments: &[&str]| {
        crate::common::scratch::run(
            std::process::Command::new(program).args(arguments).current_dir(m.path()),
        )
    };
    run("setfacl", &["-R", "-m", "u:3001:rwX,d:u:3001:rwX", "d"]);
    m.write(OsStr::from_bytes(b"d/new"), "");
    let shown = run("getfacl", &["-n", "--omit-header", "d", "d/f"]);
    assert!(shown.contains("default:user:3001:rwx"), "{shown}");
    assert!(shown.contains("user:3001:rw-"), "{shown}");
    run("setfacl", &["-R", "-b", "d"]);
    assert_eq!(m.xattr_names("d/f"), [""; 0]);
}
