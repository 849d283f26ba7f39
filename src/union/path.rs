//! Paths in the lower layers.
//!
//! There is one for every directory, and who wrote a layer decides how deep it is: each path
//! shares what leads to it with all that lies beside and below.

use std::sync::Arc;

/// A path from a layer's root.
#[derive(Debug, Clone, Default)]
pub struct LayerPath(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    above: LayerPath,
    /// One component, or several with `/` between them.
    name: Box<[u8]>,
}

impl LayerPath {
    /// The path `path`, components separated by `/`; empty for the root.
    pub fn new(path: &[u8]) -> Self {
        if path.is_empty() { Self::default() } else { Self::default().child(path) }
    }

    /// That of `name` in this directory.
    pub fn child(&self, name: &[u8]) -> Self {
        Self(Some(Arc::new(Step { above: self.clone(), name: name.into() })))
    }

    /// The name that this was made a child of `above` with, if it was.
    pub fn name_in(&self, above: &Self) -> Option<&[u8]> {
        let step = self.0.as_ref()?;
        step.above.is_same(above).then_some(&*step.name)
    }

    fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// Its components, separated by `/`; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut names: Vec<_> = self.names().collect();
        names.reverse();
        names.join(&b'/')
    }

    /// From the last component up.
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        let steps = std::iter::successors(self.0.as_deref(), |step| step.above.0.as_deref());
        steps.map(|step| &*step.name)
    }
}

impl PartialEq for LayerPath {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.to_bytes() == other.to_bytes()
    }
}

impl Drop for Step {
    /// One step after the other: a path may have more than the stack has room for.
    fn drop(&mut self) {
        let mut above = self.above.0.take();
        while let Some(step) = above {
            above = Arc::into_inner(step).and_then(|mut step| step.above.0.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        let root = LayerPath::default();
        assert_eq!(root.to_bytes(), b"");
        assert_eq!(LayerPath::new(b""), root);
        let deep = LayerPath::new(b"a/b").child(b"c");
        assert_eq!(deep.to_bytes(), b"a/b/c");
        assert_eq!(deep, LayerPath::new(b"a").child(b"b").child(b"c"));
        assert_ne!(deep, LayerPath::new(b"a/b"));
        let above = LayerPath::new(b"a");
        assert_eq!(above.child(b"b").name_in(&above), Some(&b"b"[..]));
        assert_eq!(above.name_in(&root), Some(&b"a"[..]));
        assert_eq!(deep.name_in(&above), None);
        assert_eq!(root.name_in(&root), None);
    }

    #[test]
    fn depth_has_no_limit() {
        let mut paths = vec![LayerPath::default()];
        for depth in 0..500_000 {
            paths.push(paths[depth].child(b"n"));
        }
        assert_eq!(paths[500_000].to_bytes().len(), 999_999);
        drop(paths.drain(..500_000));
    }
}
