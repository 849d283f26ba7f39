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
    /// A regular file without data of its own.
    Metacopy {
        /// Below, its data is found elsewhere.
        redirect: Option<Redirect>,
    },
    /// Anything else.
    NonDir {
        /// A regular file.
        regular: bool,
    },
}

/// Which marks a mount follows to other places.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Redirects.
    pub redirects: bool,
    /// Metadata-only files, to their data in any lower layer.
    pub metacopy: bool,
    /// There are data-only layers: a metadata-only file of a lower layer may lead there.
    pub data_layers: bool,
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
    rules: Rules,
    found_dir: bool,
    /// A metadata-only file was found, and not yet its data.
    lacks_data: bool,
    /// Such a file lies in a lower layer.
    lower_metacopy: bool,
    /// The last such file has an absolute redirect.
    absolute: bool,
    saw_redirect: bool,
}

impl Lookup {
    /// A lookup that follows what `rules` allow, and refuses the rest.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Whether a metadata-only file was found, and not yet its data.
    pub fn lacks_data(&self) -> bool {
        self.lacks_data
    }

    /// Whether a directory was found, which merges with nothing but others.
    pub fn found_dir(&self) -> bool {
        self.found_dir
    }

    /// Takes what `layer` holds.
    ///
    /// # Errors
    /// [`Refused`] when the object may not be resolved.
    pub fn visit(&mut self, layer: LayerId, facts: Facts) -> Result<Step, Refused> {
        let stop = Ok(Step { take: false, then: Then::Stop });
        // Whatever the layer holds, it was not to be asked (`ovl_check_follow_redirect`).
        if !layer.is_upper() {
            self.check_followed()?;
        }
        match facts {
            Facts::Absent => Ok(Step { take: false, then: Then::Next }),
            Facts::Whiteout => stop,
            Facts::NonDir { .. } | Facts::Metacopy { .. } if self.found_dir => stop,
            Facts::NonDir { regular: false } | Facts::Dir { .. } if self.lacks_data => stop,
            Facts::NonDir { .. } => {
                self.lacks_data = false;
                Ok(Step { take: true, then: Then::Stop })
            }
            Facts::Metacopy { redirect } => Ok(self.visit_metacopy(layer, redirect)),
            Facts::Dir { opaque, redirect } => Ok(self.visit_dir(opaque, redirect)),
        }
    }

    /// Checks that what was found so far may lead to another layer.
    ///
    /// # Errors
    /// [`Refused`] when it may not.
    pub fn check_followed(&self) -> Result<(), Refused> {
        match () {
            () if self.lacks_data && !self.rules.metacopy => Err(Refused::Metacopy),
            () if self.saw_redirect && !self.rules.redirects => Err(Refused::Redirect),
            () => Ok(()),
        }
    }

    fn visit_metacopy(&mut self, layer: LayerId, redirect: Option<Redirect>) -> Step {
        self.lacks_data = true;
        self.lower_metacopy |= !layer.is_upper();
        self.absolute = matches!(redirect, Some(Redirect::Absolute(_)));
        self.saw_redirect |= redirect.is_some();
        Step { take: true, then: redirect.map_or(Then::Next, Then::Redirected) }
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

    /// Ends the lookup when no layer is left: whether the data is to be looked for in the
    /// data-only layers, which nothing but an absolute redirect leads to.
    ///
    /// # Errors
    /// [`Refused::NoData`] when a metadata-only file was found and no data.
    pub fn finish(self) -> Result<bool, Refused> {
        if !self.lacks_data {
            return Ok(false);
        }
        if self.rules.data_layers && self.lower_metacopy && self.absolute {
            return Ok(true);
        }
        self.check_followed()?;
        Err(Refused::NoData)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Facts = Facts::NonDir { regular: true };
    const META: Facts = Facts::Metacopy { redirect: None };
    const FIFO: Facts = Facts::NonDir { regular: false };
    const DIR: Facts = Facts::Dir { opaque: false, redirect: None };
    const OPAQUE: Facts = Facts::Dir { opaque: true, redirect: None };

    fn moved() -> Facts {
        Facts::Dir { opaque: false, redirect: Some(Redirect::Sibling(b"old".to_vec())) }
    }

    fn to_data(path: &[u8]) -> Facts {
        Facts::Metacopy { redirect: Some(Redirect::Absolute(path.to_vec())) }
    }

    /// The layers that belong to the result, for facts from the upper down; the data-only
    /// layers are layer 99.
    fn resolve(rules: Rules, layers: &[Facts]) -> Result<Vec<u16>, Refused> {
        let mut lookup = Lookup::new(rules);
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
        taken.extend(lookup.finish()?.then_some(99));
        Ok(taken)
    }

    const FOLLOW: Rules = Rules { redirects: true, metacopy: false, data_layers: false };
    const METACOPY: Rules = Rules { metacopy: true, ..FOLLOW };
    const NOTHING: Rules = Rules { redirects: false, ..FOLLOW };

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
            (&[META, Absent], Err(Refused::Metacopy)),
            (&[META], Err(Refused::Metacopy)),
            (&[META, FIFO], Err(Refused::Metacopy)),
            (&[META, DIR], Err(Refused::Metacopy)),
            (&[to_data(b"x"), FILE], Err(Refused::Metacopy)),
        ];
        for (layers, want) in rows {
            assert_eq!(&resolve(FOLLOW, layers), want, "{layers:?}");
        }
    }

    #[test]
    fn data_of_metadata_only_files() {
        use Facts::{Absent, Whiteout};
        type Row<'a> = (&'a [Facts], Result<Vec<u16>, Refused>, Result<Vec<u16>, Refused>);
        // Without data-only layers, and with them.
        let no_data = Err(Refused::NoData);
        let rows: &[Row<'_>] = &[
            (&[META, FILE], Ok(vec![0, 1]), Ok(vec![0, 1])),
            (&[META, META, Absent, FILE], Ok(vec![0, 1, 3]), Ok(vec![0, 1, 3])),
            (&[Absent, META, FILE, FILE], Ok(vec![1, 2]), Ok(vec![1, 2])),
            (&[to_data(b"x"), FILE], Ok(vec![0, 1]), Ok(vec![0, 1])),
            (&[META, Absent], no_data.clone(), no_data.clone()),
            (&[META], no_data.clone(), no_data.clone()),
            (&[META, FIFO], no_data.clone(), no_data.clone()),
            (&[META, DIR, FILE], no_data.clone(), no_data.clone()),
            (&[META, Whiteout, FILE], no_data.clone(), no_data.clone()),
            (&[DIR, META, FILE], Ok(vec![0]), Ok(vec![0])),
            (&[META, META], no_data.clone(), no_data.clone()),
            (&[META, to_data(b"x")], no_data.clone(), Ok(vec![0, 1, 99])),
            (&[Absent, to_data(b"x"), Absent], no_data.clone(), Ok(vec![1, 99])),
            (&[to_data(b"x"), Absent], no_data.clone(), no_data),
        ];
        for (layers, plain, with_data) in rows {
            assert_eq!(&resolve(METACOPY, layers), plain, "{layers:?}");
            let rules = Rules { data_layers: true, ..METACOPY };
            assert_eq!(&resolve(rules, layers), with_data, "{layers:?}");
        }
    }

    #[test]
    fn data_layers_are_reached_without_metacopy_from_the_lowest_layer_only() {
        let rules = Rules { data_layers: true, ..NOTHING };
        assert_eq!(resolve(rules, &[Facts::Absent, to_data(b"x")]), Ok(vec![1, 99]));
        let above = [Facts::Absent, to_data(b"x"), Facts::Absent];
        assert_eq!(resolve(rules, &above), Err(Refused::Metacopy));
        assert_eq!(resolve(rules, &[to_data(b"x")]), Err(Refused::Metacopy));
        assert_eq!(resolve(rules, &[Facts::Absent, META]), Err(Refused::Metacopy));
    }

    #[test]
    fn redirects_are_followed_or_refused() {
        assert_eq!(resolve(FOLLOW, &[moved(), DIR]), Ok(vec![0, 1]));
        assert_eq!(resolve(NOTHING, &[moved(), DIR]), Err(Refused::Redirect));
        assert_eq!(resolve(NOTHING, &[moved(), Facts::Absent]), Err(Refused::Redirect));
        assert_eq!(resolve(NOTHING, &[Facts::Absent, moved(), DIR]), Err(Refused::Redirect));
        assert_eq!(resolve(NOTHING, &[DIR, moved()]), Ok(vec![0, 1]));
    }
}
