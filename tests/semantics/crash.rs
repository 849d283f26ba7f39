//! SIGKILL of the daemon at any moment: nothing half-made, nothing lost.
//!
//! Only ovlfuse has a daemon to kill; the kernel's overlayfs is not run here.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::common::{Backend, Context, Sandbox, Tree, backend, wait};

mounted_tests! {
    [root userns]: during_copy_up, while_data_follows, during_renames, during_removal, during_creation, during_directory_replacement;
}

/// Runs `work` on a thread, kills the daemon as soon as `reached` holds, and mounts again.
fn kill_when(s: &mut Sandbox, work: impl Fn(&Tree) + Sync, reached: impl Fn() -> bool) -> Tree {
    let m = s.merged();
    std::thread::scope(|scope| {
        // The calls fail once the daemon is gone: the worker then ends with a panic of its own.
        let workers = [0, 1].map(|_| {
            scope.spawn(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&m))))
        });
        wait::until("the moment to kill", || {
            reached() || workers.iter().all(|worker| worker.is_finished())
        });
        s.crash();
    });
    s.assert_lowers_untouched();
    let m = s.mount();
    s.assert_work_clean();
    m
}

fn skip() -> bool {
    let kernel = backend() == Backend::Kernel;
    if kernel {
        eprintln!("not run: the kernel's overlayfs has no daemon to kill");
    }
    kernel
}

fn during_copy_up(s: &mut Sandbox) {
    if skip() {
        return;
    }
    let content: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    for index in 0..60 {
        s.lower().file(format!("d{}/f{index}", index % 3), &content);
    }
    for round in [1, 7, 25] {
        s.mount();
        let upper = s.upper();
        let append = |m: &Tree| {
            for index in 0..60 {
                let path = m.at(format!("d{}/f{index}", index % 3));
                std::fs::OpenOptions::new()
                    .append(true)
                    .custom_flags(0)
                    .open(path)
                    .unwrap()
                    .write_all(b"+")
                    .unwrap();
            }
        };
        let m = kill_when(s, append, || upper.walk("").len() >= round);
        for path in upper.walk("").iter().filter(|path| !path.ends_with('/')) {
            let copied = upper.read(path);
            assert!(copied.starts_with(&content), "{path}: {} bytes in upper", copied.len());
            assert!(copied[content.len()..].iter().all(|byte| *byte == b'+'), "{path}");
        }
        for index in 0..60 {
            assert!(m.read(format!("d{}/f{index}", index % 3)).starts_with(&content));
        }
        s.unmount();
    }
    s.mount();
}

/// Data that comes to upper after its metadata: below until it is whole.
fn while_data_follows(s: &mut Sandbox) {
    if skip() {
        return;
    }
    s.option("metacopy=on");
    if s.context() != Context::root {
        s.kernel_disagrees("the kernel refuses metacopy=on with userxattr");
    }
    let content: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    for index in 0..40 {
        s.lower().file(format!("f{index}"), &content);
    }
    for round in [1, 7, 25] {
        s.mount();
        let (upper, mark) = (s.upper(), s.overlay_xattr("metacopy"));
        let follow = |m: &Tree| {
            for index in 0..40 {
                let path = m.at(format!("f{index}"));
                rustix::fs::chmod(&path, 0o600.into()).unwrap();
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(path)
                    .unwrap()
                    .write_all(b"+")
                    .unwrap();
            }
        };
        let whole =
            || upper.names("").iter().filter(|name| upper.xattr(name, &mark).is_none()).count();
        let m = kill_when(s, follow, || whole() >= round);
        for index in 0..40 {
            let read = m.read(format!("f{index}"));
            assert!(read.starts_with(&content), "f{index}: {} bytes", read.len());
            assert!(read[content.len()..].iter().all(|byte| *byte == b'+'), "f{index}");
        }
        s.unmount();
    }
    s.mount();
}

fn during_renames(s: &mut Sandbox) {
    if skip() {
        return;
    }
    for index in 0..200 {
        s.lower().file(format!("a/{index}"), index.to_string());
    }
    s.lower().dir("b");
    s.mount();
    let upper = s.upper();
    let rename = |m: &Tree| {
        for index in 0..200 {
            match std::fs::rename(m.at(format!("a/{index}")), m.at(format!("b/{index}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    };
    let m = kill_when(s, rename, || upper.exists("b/40"));
    for index in 0..200 {
        let places = ["a", "b"].map(|directory| m.exists(format!("{directory}/{index}")));
        assert!(
            places == [true, false] || places == [false, true],
            "{index}: in a and b: {places:?}"
        );
        let directory = if places[0] { "a" } else { "b" };
        assert_eq!(m.text(format!("{directory}/{index}")), index.to_string());
    }
}

fn during_removal(s: &mut Sandbox) {
    if skip() {
        return;
    }
    for index in 0..400 {
        s.lower().file(format!("d/{index}"), "x");
    }
    s.mount();
    let upper = s.upper();
    let remove = |m: &Tree| {
        for index in 0..400 {
            match std::fs::remove_file(m.at(format!("d/{index}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    };
    let m = kill_when(s, remove, || upper.exists("d/100"));
    let left = m.names("d").len();
    assert!(left < 400);
    assert_eq!(left + upper.names("d").len(), 400, "each name is there, or whited out");
    m.remove_all("d");
    m.mkdir("d");
    assert_eq!(m.names("d"), [""; 0]);
}

fn during_creation(s: &mut Sandbox) {
    if skip() {
        return;
    }
    s.lower().dir("d").chmod("d", 0o1777);
    for index in 0..300 {
        s.lower().file(format!("d/{index}"), "lower");
    }
    s.mount();
    let upper = s.upper();
    let replace = |m: &Tree| {
        for index in 0..300 {
            let temporary = format!("d/{index}.{:?}", std::thread::current().id());
            m.write(&temporary, "a whole new content");
            m.rename(&temporary, format!("d/{index}"));
        }
    };
    let m = kill_when(s, replace, || upper.exists("d/150"));
    for index in 0..300 {
        let text = m.text(format!("d/{index}"));
        assert!(text == "lower" || text == "a whole new content", "{index}: {text:?}");
    }
    assert_eq!(m.mode("d"), 0o1777);
}

fn during_directory_replacement(s: &mut Sandbox) {
    if skip() {
        return;
    }
    for index in 0..60 {
        s.lower().file(format!("{index}/old"), "");
    }
    s.mount();
    let upper = s.upper();
    let replace = |m: &Tree| {
        for index in 0..60 {
            let path = m.at(index.to_string());
            if std::fs::remove_file(path.join("old")).is_ok() {
                std::fs::remove_dir(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("new"), "").unwrap();
            }
        }
    };
    let m = kill_when(s, replace, || upper.exists("30"));
    for index in 0..60 {
        if m.exists(index.to_string()) {
            let names = m.names(index.to_string());
            assert!(names.len() <= 1, "{index}: old and new together: {names:?}");
        }
    }
}
