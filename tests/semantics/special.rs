//! Named pipes and sockets, used through the mount.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::common::{Sandbox, Tree, assert_errno};

mounted_tests! {
    [root userns user]: pipes_carry_data, sockets_connect;
    [root userns]: opening_a_lower_pipe_copies_nothing, socket_files_cannot_be_opened, links_to_pipes;
}

fn talk(m: &Tree, path: &str) {
    std::thread::scope(|scope| {
        let writer =
            scope.spawn(|| m.open(path, OFlags::WRONLY).write_all(b"through the pipe").unwrap());
        let mut text = String::new();
        m.open(path, OFlags::RDONLY).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the pipe");
        writer.join().unwrap();
    });
}

fn pipes_carry_data(s: &mut Sandbox) {
    s.lower().fifo("low");
    let m = s.mount();
    m.fifo("up");
    talk(&m, "up");
    talk(&m, "low");
    m.chmod("low", 0o600);
    talk(&m, "low");
    m.rename("low", "renamed");
    talk(&m, "renamed");
}

fn opening_a_lower_pipe_copies_nothing(s: &mut Sandbox) {
    s.lower().fifo("p");
    let m = s.mount();
    talk(&m, "p");
    drop(m.open("p", OFlags::RDWR));
    let write_only = rustix::fs::open(m.at("p"), OFlags::WRONLY | OFlags::NONBLOCK, 0o0.into());
    assert_errno(write_only, Errno::NXIO);
    assert!(!s.upper().exists("p"));
}

fn sockets_connect(s: &mut Sandbox) {
    s.lower().dir("run");
    let m = s.mount();
    // Socket paths are short; a directory descriptor keeps this one so.
    let directory = m.open("run", OFlags::DIRECTORY);
    let path = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(FileType::from_raw_mode(s.upper().stat("run/socket").st_mode), FileType::Socket);
    let mut client = UnixStream::connect(&path).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    m.unlink("run/socket");
    assert_errno(UnixStream::connect(&path), Errno::NOENT);
    assert!(!s.upper().exists("run/socket"));
}

fn socket_files_cannot_be_opened(s: &mut Sandbox) {
    s.lower().mknod("s", FileType::Socket, 0o777, (0, 0));
    let m = s.mount();
    assert_errno(rustix::fs::open(m.at("s"), OFlags::RDWR, 0o0.into()), Errno::NXIO);
}

fn links_to_pipes(s: &mut Sandbox) {
    s.lower().fifo("p");
    let m = s.mount();
    m.link("p", "q");
    if s.kernel_splits_links() {
        return;
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| m.open("p", OFlags::WRONLY).write_all(b"x").unwrap());
        assert_eq!(std::io::read_to_string(m.open("q", OFlags::RDONLY)).unwrap(), "x");
        writer.join().unwrap();
    });
    assert_eq!(m.nlink("q"), 2);
}
