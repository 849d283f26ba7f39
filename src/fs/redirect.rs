//! Redirects: how the lower parts of a directory, or the data of a metadata-only
//! file, are found after it was renamed (`fs/overlayfs/dir.c: ovl_set_redirect`).

use super::Fs;
use super::node::{Link, Node};
use crate::config::RedirectDir;
use crate::format::{Namespace, OverlayName, Redirect};
use crate::layer::facts;
use crate::sys::{Errno, Kind, Result};
use std::sync::Arc;

/// The most bytes of an absolute redirect (`fs/overlayfs/super.c: ovl_redirect_max_def`).
const REDIRECT_MAX: usize = 256;

/// What is done about redirects unless an option says so: following them needs
/// trust in who wrote them.
pub fn default_of(namespace: Namespace) -> RedirectDir {
    match namespace {
        Namespace::Trusted => RedirectDir::Follow,
        Namespace::User => RedirectDir::NoFollow,
    }
}

impl Fs {
    /// Whether redirects are followed.
    pub(super) fn follows_redirects(&self) -> bool {
        match self.redirects {
            RedirectDir::NoFollow => false,
            RedirectDir::Follow | RedirectDir::On => true,
            RedirectDir::Copy => default_of(self.layers.namespace) == RedirectDir::Follow,
        }
    }

    /// Whether redirects are made.
    pub(super) fn makes_redirects(&self) -> bool {
        self.redirects == RedirectDir::On
    }

    /// Checks that `node` can be renamed without copying what lies in it.
    ///
    /// # Errors
    /// `EXDEV` for a directory with parts in lower layers, unless redirects are made.
    pub(super) fn check_movable(&self, node: &Node) -> Result<()> {
        match node.kind != Kind::Dir || node.is_pure_upper() || self.makes_redirects() {
            true => Ok(()),
            false => Err(Errno::XDEV),
        }
    }

    /// Lets the directory or metadata-only file `node`, whose name `link` is about to change,
    /// keep its lower parts: by its name while it stays in its directory, by a path when
    /// it `crosses` into another. The caller keeps all directories from being renamed.
    ///
    /// # Errors
    /// `EXDEV` for a path too long, or a redirect that cannot be stored.
    pub(super) fn set_redirect(&self, node: &Arc<Node>, link: Link, crosses: bool) -> Result<()> {
        let value = match (self.redirect_of(node)?, crosses) {
            (Some(Redirect::Absolute(_)), _) | (Some(Redirect::Sibling(_)), false) => return Ok(()),
            (_, true) => self.absolute_redirect(node, link)?,
            (None, false) => link.name.into_vec(),
        };
        let upper = self.upper()?;
        self.on(node, |at, _| upper.mark(at, OverlayName::Redirect, &value)).map_err(|e| {
            log::warn!("no redirect {} is stored: {e}", value.escape_ascii());
            Errno::XDEV
        })
    }

    /// The path from the overlay's root under which `node`, called `link`, is found in the
    /// layers below.
    fn absolute_redirect(&self, node: &Arc<Node>, link: Link) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        let (mut here, mut next) = (Arc::clone(node), Some(link));
        while let Some(link) = next {
            match self.redirect_of(&here)? {
                Some(Redirect::Absolute(path)) => {
                    names.push(path);
                    break;
                }
                Some(Redirect::Sibling(name)) => names.push(name),
                None => names.push(link.name.into_vec()),
            }
            here = link.parent;
            next = here.link();
        }
        names.push(Vec::new());
        names.reverse();
        let path = names.join(&b'/');
        if path.len() > REDIRECT_MAX { Err(Errno::XDEV) } else { Ok(path) }
    }

    fn redirect_of(&self, node: &Node) -> Result<Option<Redirect>> {
        self.on(node, |at, _| facts::redirect_of(at, self.layers.namespace))
    }
}
