//! The decisions of the union alone, without FUSE, files or a mount: `cargo bench --bench union`.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ovlfuse::union::LayerId;
use ovlfuse::union::listing::{LayerEntry, Listing};
use ovlfuse::union::lookup::{Facts, Lookup, Rules, Then};

/// Names in every directory.
const NAMES: usize = 1000;
const LAYERS: [u16; 3] = [2, 64, 500];
const DT_DIR: u8 = 4;
const DT_REG: u8 = 8;

/// Layer by layer, until a whiteout at the bottom ends it: a directory that is in every other layer.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for layers in LAYERS {
        group.bench_with_input(BenchmarkId::from_parameter(layers), &layers, |b, &layers| {
            b.iter(|| {
                let mut lookup = Lookup::new(Rules::default());
                let mut taken = 0;
                for layer in 0..=layers {
                    let facts = match layer {
                        last if last == layers => Facts::Whiteout,
                        even if even % 2 == 0 => Facts::Dir { opaque: false, redirect: None },
                        _ => Facts::Absent,
                    };
                    match lookup.visit(LayerId(layer), black_box(facts)) {
                        Ok(step) => {
                            taken += usize::from(step.take);
                            if step.then == Then::Stop {
                                break;
                            }
                        }
                        Err(_) => break,
                    }
                }
                taken
            });
        });
    }
}

/// A directory whose names are spread over the layers: every fourth is a folder in all of them, every
/// tenth has a whiteout above.
fn merged(layers: u16, names: &[String]) -> Listing {
    let mut listing = Listing::default();
    for layer in 0..layers {
        for (i, name) in names.iter().enumerate() {
            let (is_dir, home) = (i % 4 == 0, i % usize::from(layers) == usize::from(layer));
            let whiteout = layer == 0 && i % 10 == 0;
            if is_dir || home || whiteout {
                let dtype = if is_dir { DT_DIR } else { DT_REG };
                listing.add(LayerId(layer), LayerEntry { name: name.as_bytes(), dtype, whiteout });
            }
        }
    }
    listing
}

fn names() -> Vec<String> {
    (0..NAMES).map(|i| format!("file-{i:05}.txt")).collect()
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    let names = names();
    for layers in LAYERS {
        group.bench_with_input(BenchmarkId::from_parameter(layers), &layers, |b, &layers| {
            b.iter(|| merged(black_box(layers), &names));
        });
    }
}

/// What READDIR, a lookup that hits, one that misses, and a change cost.
fn listing(c: &mut Criterion) {
    let mut group = c.benchmark_group("listing");
    let names = names();
    let mut listing = merged(64, &names);
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("read", |b| {
        b.iter(|| listing.after(0).map(|item| item.name.len()).sum::<usize>());
    });
    group.bench_function("hit", |b| {
        b.iter(|| names.iter().filter(|n| listing.get(n.as_bytes()).is_some()).count());
    });
    group.bench_function("miss", |b| {
        let missing: Vec<_> = (0..NAMES).map(|i| format!("missing-{i}")).collect();
        b.iter(|| missing.iter().filter(|n| listing.get(n.as_bytes()).is_some()).count());
    });
    group.bench_function("add and remove", |b| {
        b.iter(|| {
            for name in &names {
                listing.set_upper(name.as_bytes(), DT_REG, false);
                listing.remove(name.as_bytes());
            }
        });
    });
}

criterion_group!(benches, lookup, merge, listing);
criterion_main!(benches);
