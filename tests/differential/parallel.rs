//! Threads on one mount (to come).
