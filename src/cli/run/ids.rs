//! The users and groups of the user namespace (user_namespaces(7)).

use std::fs;
use std::io;
use std::process::Command;

use nix::unistd::User;
use rustix::process::{Pid, getegid, geteuid};

use super::super::say;
use crate::error::{Failure, MountError};

/// Maps users and groups for the process `child`, which has made a user namespace. What was done, in
/// words.
///
/// Root keeps all ids as they are. An ordinary user is root inside, and has the other ids from the
/// user's ranges in `/etc/subuid` and `/etc/subgid`; without those, root is all there is.
///
/// # Errors
/// The kernel refuses even that.
pub fn map(child: Pid) -> Result<&'static str, MountError> {
    if geteuid().is_root() && map_identically(child).is_ok() {
        return Ok("ids inside are those outside");
    }
    match map_ranges(child) {
        Some(Ok(())) => return Ok("ids inside are from /etc/subuid and /etc/subgid"),
        Some(Err(reason)) => say(format_args!("warning: {reason}: root is the only user inside")),
        None => {}
    }
    map_single(child).map_err(|error| {
        let message = format!("the ids of the user namespace cannot be mapped: {error}");
        MountError::new(Failure::Internal, message)
    })?;
    Ok(
        "there are no newuidmap and newgidmap, or no ranges in /etc/subuid and /etc/subgid: root is \
        the only user inside",
    )
}

fn write(child: Pid, file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/{child}/{file}"), text)
}

fn map_identically(child: Pid) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{file}"))?;
        write(child, file, &identity(&own))?;
    }
    Ok(())
}

/// Every id that is inside the map `own` (lines of: first inside, first outside, count), to itself.
fn identity(own: &str) -> String {
    let mut text = String::new();
    for line in own.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            text.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    text
}

fn map_single(child: Pid) -> io::Result<()> {
    // Who could drop a group might get at files that are closed to it.
    write(child, "setgroups", "deny")?;
    write(child, "uid_map", &format!("0 {} 1", geteuid().as_raw()))?;
    write(child, "gid_map", &format!("0 {} 1", getegid().as_raw()))
}

/// `None` where the user has no ranges, or there is no program to use them.
fn map_ranges(child: Pid) -> Option<Result<(), String>> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let maps = [("newuidmap", "/etc/subuid", uid), ("newgidmap", "/etc/subgid", gid)];
    for (program, file, own) in maps {
        let ranges = ranges(&fs::read_to_string(file).ok()?, name.as_deref(), uid);
        if ranges.is_empty() {
            return None;
        }
        let mut command = Command::new(program);
        command.args([child.to_string(), "0".into(), own.to_string(), "1".into()]);
        let mut next = 1;
        for (first, count) in ranges {
            command.args([next, first, count].map(|number| number.to_string()));
            next += count;
        }
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Some(Err(format!("{program} failed: {}", said.trim())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Err(format!("{program} cannot be run: {error}"))),
        }
    }
    Some(Ok(()))
}

/// The ranges (first, count) of user `uid`, called `name`, in `table` (subuid(5)).
fn ranges(table: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let of_line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        (Some(owner) == name || owner == uid).then_some((first, count))
    };
    table.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let table = "a:100000:65536\n# comment\nb:1:2\n1000:300000:10\nbroken:x:1\n";
        assert_eq!(ranges(table, Some("a"), 1000), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(ranges(table, None, 7), []);
    }

    #[test]
    fn identity_of_a_map() {
        assert_eq!(identity("  0  1000  1\n 1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
