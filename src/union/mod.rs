//! union
