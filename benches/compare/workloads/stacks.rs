//! Mounting, many layers, and what the daemon needs in memory.

use std::fs;

use super::pick;
use super::reads::{SEED, count_below, miss_all, missing_names, stack_folders, stat_all};
use crate::Result;
use crate::layers::Layers;
use crate::scene::{Access, Scene, Unit};

/// Mounts of each size in one run.
const MOUNTS: usize = 3;

/// How long it takes until the mount answers.
pub fn mount(scene: &mut Scene) -> Result<()> {
    for (part, count) in [("2 layers", 2), ("500 layers", 500)] {
        let lowers = scene.layers.stack(count)?;
        let mut seconds = 0.0;
        for _ in 0..MOUNTS {
            let view = scene.view(lowers.clone(), Access::Writable)?;
            seconds += view.mount_time.as_secs_f64();
            view.close()?;
        }
        scene.note(part, Unit::Seconds, MOUNTS, seconds);
    }
    Ok(())
}

/// The same names spread over `count` layers; each part has a fresh mount.
pub fn stack(scene: &mut Scene, count: usize) -> Result<()> {
    let lowers = scene.layers.stack(count)?;
    let names = pick(&Layers::stack_names(), usize::MAX, SEED);
    let folders = stack_folders();
    let missing = missing_names(&folders, names.len());

    let view = scene.view(lowers.clone(), Access::Writable)?;
    scene.time(&view, "stat", names.len(), |root| stat_all(root, &names))?;
    view.close()?;

    let view = scene.view(lowers.clone(), Access::Writable)?;
    scene.time(&view, "miss", missing.len(), |root| miss_all(root, &missing))?;
    view.close()?;

    let view = scene.view(lowers, Access::Writable)?;
    let expected = names.len() + folders.len();
    let seen = scene.time(&view, "walk", expected, count_below)?;
    if seen != expected {
        return Err(format!("the walk saw {seen} names, not {expected}").into());
    }
    view.close()
}

/// The daemon's resident memory once the kernel holds every inode, and its peak.
pub fn memory(scene: &mut Scene) -> Result<()> {
    let lower = scene.layers.many()?;
    let view = scene.view(vec![lower], Access::Writable)?;
    let known = count_below(&view.root)?;
    let daemon = view.mounted().ok_or("no mount")?.daemon()?;
    let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
    for (part, key) in [("now", "VmRSS:"), ("peak", "VmHWM:")] {
        scene.note(part, Unit::Bytes, known, field_bytes(&status, key)?);
    }
    view.close()
}

/// A field of /proc/PID/status, which are in KiB.
fn field_bytes(status: &str, key: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let kib: f64 = number.ok_or_else(|| format!("no {key}"))?.parse()?;
    Ok(kib * 1024.0)
}
