//! Making a failing script short.

use std::time::Instant;

use crate::case::{self, Divergence, Place};
use crate::script::Script;

/// Leaves out lines of `script` as long as the same kind of difference remains and `deadline`
/// has not passed: halves first, then smaller pieces, in the manner of delta debugging.
pub fn shrink(
    script: &Script,
    found: &Divergence,
    place: &Place,
    deadline: Instant,
) -> (Script, Divergence) {
    let (mut best, mut why) = (script.clone(), found.clone());
    let try_it = |candidate: Script, best: &mut Script, why: &mut Divergence| {
        let result = case::run(&candidate, place).filter(|result| result.kind == found.kind);
        let Some(result) = result else { return false };
        (*best, *why) = (candidate, result);
        true
    };
    let mut piece = best.lines.len().div_ceil(2);
    while piece > 0 && Instant::now() < deadline {
        let mut end = best.lines.len();
        let mut smaller = false;
        // From the end: later calls depend on earlier ones.
        while end > 0 && Instant::now() < deadline {
            let start = end.saturating_sub(piece);
            let mut candidate = best.clone();
            candidate.lines.drain(start..end);
            smaller |= try_it(candidate, &mut best, &mut why);
            end = start;
        }
        if piece == 1 && !smaller {
            break;
        }
        piece = if piece > 1 { piece / 2 } else { 1 };
    }
    while best.lowers > 1 && Instant::now() < deadline {
        let candidate = Script { lowers: best.lowers - 1, ..best.clone() };
        if !try_it(candidate, &mut best, &mut why) {
            break;
        }
    }
    (best, why)
}
