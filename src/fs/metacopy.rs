//! Files whose layer holds their metadata only (`metacopy`): where their data is, and how it
//! comes to upper.
//!
//! A node says of itself that it lacks data; where that is stands in a table beside, because few
//! do. The data is in a lower layer, so its path never changes. In data-only layers it is looked
//! for at the first use, as in the kernel (`fs/overlayfs/namei.c: ovl_maybe_lookup_lowerdata`).

use super::Fs;
use super::copy_up::Busy;
use super::node::{Link, Node};
use crate::config::Fsync;
use crate::format::OverlayName;
use crate::layer::Lower;
use crate::sys::{self, At, Errno, Kind, Result, Stat, xattr};
use crate::union::LayerId;
use crate::union::lookup::Rules;
use crate::union::path::LayerPath;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Where the data of a metadata-only file is.
#[derive(Debug, Clone)]
pub struct Data {
    /// The layer; `None`: one of the data-only ones, not looked for yet.
    layer: Option<LayerId>,
    /// The path from the layer's root.
    path: LayerPath,
    /// Its 512-byte blocks, once it was found.
    blocks: u64,
    /// The metadata below has several names, so that only a path can lead back to it.
    shared: bool,
}

impl Data {
    /// Data at `path` in `layer`, of `blocks` blocks.
    pub(super) fn at(layer: LayerId, path: LayerPath, blocks: u64) -> Self {
        Self { layer: Some(layer), path, blocks, shared: false }
    }

    /// The same, of metadata that has `nlink` names below.
    pub(super) fn with_names(self, nlink: u32) -> Self {
        Self { shared: nlink > 1, ..self }
    }

    /// Data at `path` in one of the data-only layers.
    pub(super) fn in_data_layers(path: LayerPath) -> Self {
        Self { layer: None, path, blocks: 0, shared: false }
    }
}

impl Fs {
    /// What may be followed from one layer to another.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            redirects: self.follows_redirects(),
            metacopy: self.metacopy,
            data_layers: !self.layers.data.is_empty(),
        }
    }

    /// Notes that the layer of `node` holds its metadata only.
    pub(super) fn note_data(&self, node: &Node, data: Data) {
        self.data.insert(node.id, data);
        node.set_lacks_data(true);
    }

    /// Notes that `node` has its data where its metadata is, or is gone.
    pub(super) fn drop_data(&self, node: &Node) {
        if node.lacks_data() {
            node.set_lacks_data(false);
            self.data.remove(&node.id);
        }
    }

    /// Whether the metadata-only file `node` has several names below.
    pub(super) fn is_shared_below(&self, node: &Node) -> bool {
        self.data.get(&node.id).is_some_and(|data| data.shared)
    }

    /// The blocks of the metadata-only file `node`: those of its data; a guess from its size
    /// until that was looked for (`fs/overlayfs/inode.c: ovl_getattr`).
    pub(super) fn data_blocks(&self, node: &Node, stat: &Stat) -> u64 {
        match self.data.get(&node.id) {
            Some(data) if data.layer.is_some() => data.blocks,
            Some(_) => stat.size.next_multiple_of(u64::from(stat.blksize.max(512))) / 512,
            None => stat.blocks,
        }
    }

    /// The data of the lower file that `link` names, which has the attributes `stat`.
    pub(super) fn data_at(&self, link: &Link, layer: LayerId, stat: &Stat) -> Result<Data> {
        let dir = link.parent.dir()?.lower(layer).ok_or(Errno::IO)?;
        Ok(Data::at(layer, dir.path.child(&link.name), stat.blocks))
    }

    /// Looks for the data of the metadata-only file `node`.
    ///
    /// # Errors
    /// `ENOENT` when it is in none of the data-only layers.
    pub(super) fn find_data(&self, node: &Node) -> Result<Data> {
        let known = self.data.get(&node.id).map(|data| data.clone()).ok_or(Errno::IO)?;
        if known.layer.is_some() {
            return Ok(known);
        }
        let path = known.path.to_bytes();
        let mut result = Err(Errno::NOENT);
        for (lower, i) in self.layers.data.iter().zip(self.layers.lowers.len() + 1..) {
            match self.at_path(lower, &path, sys::stat::stat) {
                Ok(stat) if stat.kind() == Kind::File => {
                    let layer = Some(LayerId(i as u16));
                    let found = Data { layer, blocks: stat.blocks, ..known };
                    self.data.alter(&node.id, |_, _| found.clone());
                    return Ok(found);
                }
                Ok(_) => result = Err(Errno::NOENT),
                Err(e) => result = Err(e),
            }
        }
        log::debug!("no data-only layer has a file {}", path.escape_ascii());
        result
    }

    /// Opens the data of the metadata-only file `node` for reading.
    ///
    /// # Errors
    /// Those of [`Self::find_data`] and open(2).
    pub(super) fn open_data(&self, node: &Node) -> Result<OwnedFd> {
        let data = self.find_data(node)?;
        let lower = self.lower(data.layer.ok_or(Errno::IO)?)?;
        self.at_path(lower, &data.path.to_bytes(), |at| self.open_lower(at))
    }

    /// Calls `f` with the object at `path` of a layer.
    fn at_path<T>(
        &self,
        lower: &Lower,
        path: &[u8],
        f: impl FnOnce(At<'_>) -> Result<T>,
    ) -> Result<T> {
        let (parent, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(end) => (&path[..end], &path[end + 1..]),
            None => (&b""[..], path),
        };
        let open = || sys::node::open_dir_path(lower.root(), parent);
        let dir = self.with_descriptors(open)?;
        f(At::new(dir.as_fd(), name))
    }

    /// Calls `f` with where `node` is, to change its attributes, but not while its data is copied
    /// up: writing takes some of them away, which [`Self::copy_data`] puts back.
    ///
    /// # Errors
    /// Those of [`Self::on`].
    pub(super) fn on_at_rest<T>(
        &self,
        node: &Node,
        f: impl FnOnce(At<'_>, LayerId) -> Result<T>,
    ) -> Result<T> {
        let busy = node.lacks_data().then(|| self.busy(node));
        let _held = busy.as_ref().map(Busy::lock);
        self.on(node, f)
    }

    /// Copies the first `keep` bytes of its data (the rest is about to be cut off) to `node`,
    /// of which only the metadata is in upper. The mark goes last: until then everybody finds
    /// the data below (`fs/overlayfs/copy_up.c: ovl_copy_up_meta_inode_data`).
    ///
    /// # Errors
    /// Those of opening and copying the data; it is then still found below.
    pub(super) fn copy_data(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        let busy = self.busy(node);
        let _held = busy.lock();
        if !node.lacks_data() {
            return Ok(());
        }
        let upper = self.upper()?;
        let file =
            self.on(node, |at, _| self.with_descriptors(|| sys::node::open(at, OFlags::RDWR)))?;
        let to = At::fd(file.as_fd());
        let stat = sys::stat::stat(to)?;
        let capability = xattr::get(to, CAPABILITY)?;
        if stat.size > 0 {
            let from = self.open_data(node)?;
            sys::data::copy(from.as_fd(), file.as_fd(), stat.size.min(keep), keep >= stat.size)?;
        }
        if self.fsync != Fsync::Volatile && stat.size.min(keep) > 0 {
            rustix::fs::fsync(&file)?;
        }
        // Not earlier: a crash in between would leave a size that is not that of the data below.
        if keep < stat.size {
            rustix::fs::ftruncate(&file, keep)?;
        }
        // Writing takes both away.
        if sys::stat::stat(to)?.mode != stat.mode {
            sys::node::chmod(to, stat.mode)?;
        }
        if let Some(capability) = capability {
            xattr::set(to, CAPABILITY, &capability, 0)?;
        }
        upper.unmark(to, OverlayName::Metacopy)?;
        let file = Arc::new(file);
        let place = node.place.write();
        self.drop_data(node);
        node.opens().iter().for_each(|open| open.adopt(&file));
        drop(place);
        self.attributes_changed(node);
        Ok(())
    }
}

const CAPABILITY: &std::ffi::CStr = c"security.capability";
