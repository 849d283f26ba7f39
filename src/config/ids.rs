//! Owners in the view that differ from owners on disk: fuse-overlayfs's
//! `uidmapping=`, `squash_to_uid=` and their relatives.

/// Shown, and stored, for an id that no range holds; the kernel's own default.
const OVERFLOW: u32 = 65534;

/// How ids of one kind, users or groups, are translated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    /// The ranges; none: ids are the same on both sides.
    pub ranges: Vec<Range>,
    /// The one id that the view shows for all.
    pub squash: Option<u32>,
}

/// `count` ids from `disk` on are shown as those from `view` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first id on disk.
    pub disk: u32,
    /// The first id in the view.
    pub view: u32,
    /// How many there are.
    pub count: u32,
}

impl IdMap {
    /// The id that the view shows for `disk`.
    pub fn shown(&self, disk: u32) -> u32 {
        if let Some(id) = self.squash {
            return id;
        }
        self.translate(disk, |r| (r.disk, r.view)).unwrap_or(OVERFLOW)
    }

    /// The id on disk for `view`; `None` where no range holds it.
    pub fn stored(&self, view: u32) -> Option<u32> {
        self.translate(view, |r| (r.view, r.disk))
    }

    /// The id on disk of what the user or group `view` makes.
    pub fn stored_by(&self, view: u32) -> u32 {
        self.stored(view).unwrap_or(OVERFLOW)
    }

    fn translate(&self, id: u32, sides: fn(&Range) -> (u32, u32)) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(id);
        }
        self.ranges.iter().find_map(|range| {
            let (from, to) = sides(range);
            let distance = id.checked_sub(from)?;
            (distance < range.count).then_some(to + distance)
        })
    }
}

/// Reads `DISK:VIEW:COUNT[:DISK:VIEW:COUNT…]`, which podman begins with a `:`, and in which the
/// manual of fuse-overlayfs has commas between ranges; `None` when it is anything else.
pub fn ranges(list: &str) -> Option<Vec<Range>> {
    let list = list.strip_prefix(':').unwrap_or(list);
    let numbers: Vec<u32> =
        list.split([':', ',']).map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let (triples, rest) = numbers.as_chunks::<3>();
    let range = |&[disk, view, count]: &[u32; 3]| {
        // The largest number is chown(2)'s "no change".
        let fits = |first: u32| first.checked_add(count).is_some();
        (count > 0 && fits(disk) && fits(view)).then_some(Range { disk, view, count })
    };
    if !rest.is_empty() {
        return None;
    }
    triples.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_go_both_ways() {
        let map = IdMap { ranges: ranges("0:1000:1:1:110000:65536").unwrap(), squash: None };
        for (disk, view) in [(0, 1000), (1, 110_000), (65536, 175_535)] {
            assert_eq!((map.shown(disk), map.stored(view)), (view, Some(disk)));
        }
        assert_eq!((map.shown(65537), map.stored(0), map.stored_by(0)), (OVERFLOW, None, OVERFLOW));
    }

    #[test]
    fn squashing_concerns_the_view_only() {
        let map = IdMap { ranges: Vec::new(), squash: Some(5) };
        assert_eq!((map.shown(7), map.stored(7)), (5, Some(7)));
        assert_eq!(IdMap::default().shown(7), 7);
    }

    #[test]
    fn malformed_ranges() {
        for list in [
            "",
            ":",
            "::0:1:1",
            "0",
            "0:1",
            "0:1:",
            "0:1:1:2",
            "a:1:1",
            "0:1:0",
            "1:0:4294967295",
            "-1:0:1",
        ] {
            assert_eq!(ranges(list), None, "{list}");
        }
        assert!(ranges("0:0:4294967295").is_some());
        for other in [":0:1:5:5:0:1", "0:1:5,5:0:1"] {
            assert_eq!(ranges(other), ranges("0:1:5:5:0:1"));
        }
    }
}
