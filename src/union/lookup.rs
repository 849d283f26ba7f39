//! What a name resolves to, decided layer by layer from the top down.
//!
//! [`crate::fs`] gathers [`Facts`] about the name in one layer after the other
//! and hands them to a [`Lookup`], which says whether the layer's object is
//! part of the result and where to look next. The rules are those of
//! `fs/overlayfs/namei.c: ovl_lookup`.

use super::LayerId;
use crate::format::Redirect;

/// What one layer holds under the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// Nothing (or the layer's file system cannot hold such a name).
    Absent,
    /// A whiteout, in whatever form.
    Whiteout,
    /// A directory. `opaque` and `redirect` need to be known only when a layer follows.
    Dir {
        /// It hides everything below.
        opaque: bool,
        /// Below, it is found elsewhere.
        redirect: Option<Redirect>,
    },
    /// Anything else.
    NonDir {
        /// A regular file.
        regular: bool,
        /// A regular file without data of its own.
        metacopy: bool,
    },
}

/// What to do after one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The layer's object belongs to the result.
    pub take: bool,
    /// Where to go on.
    pub then: Then,
}

/// Where a lookup goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// The next layer, under the same name.
    Next,
    /// The next layer, elsewhere.
    Redirected(Redirect),
    /// Nowhere: the layers below are hidden.
    Stop,
}

/// Why a name that exists cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A metadata-only file, which this mount does not follow (the kernel: `EPERM`).
    Metacopy,
    /// A metadata-only file without data below (the kernel: `EIO`).
    NoData,
    /// A redirect, which this mount does not follow (the kernel: `EPERM`).
    Redirect,
}

/// A lookup under way.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    follow_redirects: bool,
    found_dir: bool,
    found_metacopy: bool,
    saw_redirect: bool,
}

impl Lookup {
    /// A lookup that follows redirects or refuses them.
    pub fn new(follow_redirects: bool) -> Self {
        Self { follow_redirects, ..Self::default() }
    }

    /// Takes what `layer` holds.
    ///
    /// # Errors
    /// [`Refused`] when the object may not be resolved.
    pub fn visit(&mut self, layer: LayerId, facts: Facts) -> Result<Step, Refused> {
        let stop = Ok(Step { take: false, then: Then::Stop });
        // Whatever the layer holds, it was not to be asked (`ovl_check_follow_redirect`).
        if !layer.is_upper() && self.saw_redirect && !self.follow_redirects {
            return Err(Refused::Redirect);
        }
        match facts {
            Facts::Absent => Ok(Step { take: false, then: Then::Next }),
            Facts::Whiteout => stop,
            Facts::NonDir { .. } if self.found_dir => stop,
            Facts::NonDir { regular: false, .. } | Facts::Dir { .. } if self.found_metacopy => stop,
            Facts::NonDir { metacopy, .. } => self.visit_non_dir(layer, metacopy),
            Facts::Dir { opaque, redirect } => Ok(self.visit_dir(opaque, redirect)),
        }
    }

    fn visit_non_dir(&mut self, layer: LayerId, metacopy: bool) -> Result<Step, Refused> {
        if !layer.is_upper() && (self.found_metacopy || metacopy) {
            return Err(Refused::Metacopy);
        }
        self.found_metacopy |= metacopy;
        let then = if metacopy { Then::Next } else { Then::Stop };
        Ok(Step { take: true, then })
    }

    fn visit_dir(&mut self, opaque: bool, redirect: Option<Redirect>) -> Step {
        self.found_dir = true;
        self.saw_redirect |= redirect.is_some();
        let then = match redirect {
            _ if opaque => Then::Stop,
            Some(redirect) => Then::Redirected(redirect),
            None => Then::Next,
        };
        Step { take: true, then }
    }

    /// Ends the lookup when no layer is left.
    ///
    /// # Errors
    /// [`Refused::NoData`] when a metadata-only file was found and no data.
    pub fn finish(self) -> Result<(), Refused> {
        if self.found_metacopy { Err(Refused::NoData) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Facts = Facts::NonDir { regular: true, metacopy: false };
    const META: Facts = Facts::NonDir { regular: true, metacopy: true };
    const FIFO: Facts = Facts::NonDir { regular: false, metacopy: false };
    const DIR: Facts = Facts::Dir { opaque: false, redirect: None };
    const OPAQUE: Facts = Facts::Dir { opaque: true, redirect: None };

    fn moved() -> Facts {
        Facts::Dir { opaque: false, redirect: Some(Redirect::Sibling(b"old".to_vec())) }
    }

    /// The layers that belong to the result, for facts from the upper down.
    fn resolve(follow: bool, layers: &[Facts]) -> Result<Vec<u16>, Refused> {
        let mut lookup = Lookup::new(follow);
        let mut taken = Vec::new();
        for (i, facts) in layers.iter().enumerate() {
            let step = lookup.visit(LayerId(i as u16), facts.clone())?;
            if step.take {
                taken.push(i as u16);
            }
            if step.then == Then::Stop {
                break;
            }
        }
        lookup.finish()?;
        Ok(taken)
    }

    #[test]
    fn table() {
        use Facts::{Absent, Whiteout};
        type Row<'a> = (&'a [Facts], Result<Vec<u16>, Refused>);
        let rows: &[Row<'_>] = &[
            (&[Absent, Absent], Ok(vec![])),
            (&[Absent, FILE], Ok(vec![1])),
            (&[FILE, FILE], Ok(vec![0])),
            (&[FIFO, DIR], Ok(vec![0])),
            (&[Whiteout, FILE], Ok(vec![])),
            (&[Absent, Whiteout, FILE], Ok(vec![])),
            (&[DIR, DIR, DIR], Ok(vec![0, 1, 2])),
            (&[DIR, Absent, DIR], Ok(vec![0, 2])),
            (&[DIR, FILE, DIR], Ok(vec![0])),
            (&[DIR, Whiteout, DIR], Ok(vec![0])),
            (&[DIR, OPAQUE, DIR], Ok(vec![0, 1])),
            (&[OPAQUE, DIR], Ok(vec![0])),
            (&[META, FILE], Err(Refused::Metacopy)),
            (&[Absent, META, FILE], Err(Refused::Metacopy)),
            (&[META, Absent], Err(Refused::NoData)),
            (&[META, FIFO], Err(Refused::NoData)),
            (&[META, DIR], Err(Refused::NoData)),
        ];
        for (layers, want) in rows {
            assert_eq!(&resolve(true, layers), want, "{layers:?}");
        }
    }

    #[test]
    fn redirects_are_followed_or_refused() {
        assert_eq!(resolve(true, &[moved(), DIR]), Ok(vec![0, 1]));
        assert_eq!(resolve(false, &[moved(), DIR]), Err(Refused::Redirect));
        assert_eq!(resolve(false, &[moved(), Facts::Absent]), Err(Refused::Redirect));
        assert_eq!(resolve(false, &[Facts::Absent, moved(), DIR]), Err(Refused::Redirect));
        assert_eq!(resolve(false, &[DIR, moved()]), Ok(vec![0, 1]));
    }
}
