//! Tables on stdout and JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::run::{Cell, Results, Row};
use crate::scene::Unit;

/// Requests and system calls named in a line of the table; the rest is summed up.
const NAMED_COUNTS: usize = 6;

/// Prints every table that has something in it.
pub fn print(results: &Results) {
    for (key, value) in &results.setting {
        println!("{key}: {value}");
    }
    if results.rows.iter().any(has_values) {
        println!("\nSeconds (memory: MiB), median and least to greatest");
        print_table(&times(results));
        println!(
            "\nTimes the kernel's overlayfs, and its microseconds (memory: bytes) an operation"
        );
        print_table(&ratios(results));
    }
    let counts = counts(results);
    if !counts.is_empty() {
        println!("\nFUSE requests and system calls of the daemon, an operation");
        counts.iter().for_each(|line| println!("{line}"));
    }
    for reason in &results.left_out {
        println!("left out: {reason}");
    }
    for failure in &results.failures {
        println!("failed: {failure}");
    }
}

fn has_values(row: &Row) -> bool {
    row.cells.iter().any(|cell| !cell.values.is_empty())
}

fn times(results: &Results) -> Vec<Vec<String>> {
    let mut table = vec![vec![String::new()]];
    table[0].extend(results.systems.iter().cloned());
    for row in results.rows.iter().filter(|row| has_values(row)) {
        let mut line = vec![row.label()];
        line.extend(row.cells.iter().map(|cell| time(row, cell)));
        table.push(line);
    }
    table
}

fn time(row: &Row, cell: &Cell) -> String {
    let scale = match row.unit {
        Unit::Seconds => 1.0,
        Unit::Bytes => f64::from(1 << 20),
    };
    cell.spread().map_or("–".into(), |s| {
        let [median, min, max] = [s.median, s.min, s.max].map(|v| short(v / scale));
        format!("{median} ({min}–{max})")
    })
}

/// Three significant digits, without exponent.
fn short(value: f64) -> String {
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        v if v >= 0.01 => 4,
        _ => 5,
    };
    format!("{value:.digits$}")
}

fn ratios(results: &Results) -> Vec<Vec<String>> {
    let mut header = vec![String::new(), "operations".into(), "each".into()];
    header.extend(results.systems.iter().cloned());
    let mut table = vec![header];
    for row in results.rows.iter().filter(|row| has_values(row)) {
        let mut line = vec![row.label(), row.ops.to_string(), each(results, row)];
        line.extend((0..row.cells.len()).map(|i| {
            let ratio = row.ratio(i, results.kernel);
            ratio.map_or("–".into(), |r| format!("{r:.2}"))
        }));
        table.push(line);
    }
    table
}

/// What an operation costs the kernel; where it takes no part, the last system.
fn each(results: &Results, row: &Row) -> String {
    let scale = match row.unit {
        Unit::Seconds => 1e6,
        Unit::Bytes => 1.0,
    };
    let kernel = results.kernel.and_then(|k| row.cells.get(k)?.spread());
    let spread = kernel.or_else(|| row.cells.iter().rev().find_map(Cell::spread));
    spread.map_or("–".into(), |s| short(s.median * scale / row.ops as f64))
}

/// Prints lines in columns, the first one left-aligned.
fn print_table(table: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = table.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for line in table {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            if column == 0 {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        println!("{}", text.trim_end());
    }
}

fn counts(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &results.rows {
        for (system, cell) in results.systems.iter().zip(&row.cells) {
            if let Some(counts) = &cell.counts {
                lines.push(format!("{}, {system}", row.label()));
                lines.push(format!("  requests {}", summary(&counts.requests, row.ops)));
                lines.push(format!("  calls    {}", summary(&counts.syscalls, row.ops)));
            }
        }
    }
    lines
}

/// `4.0: LOOKUP 1.0, CREATE 1.0, others 2.0`.
fn summary(counts: &BTreeMap<String, u64>, ops: usize) -> String {
    let each = |count: u64| short(count as f64 / ops as f64);
    let mut sorted: Vec<_> = counts.iter().map(|(name, &count)| (name, count)).collect();
    sorted.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let named = sorted.iter().take(NAMED_COUNTS);
    let mut parts: Vec<_> = named.map(|&(name, count)| format!("{name} {}", each(count))).collect();
    let rest: u64 = sorted.iter().skip(NAMED_COUNTS).map(|&(_, c)| c).sum();
    if rest > 0 {
        parts.push(format!("others {}", each(rest)));
    }
    format!("{}: {}", each(counts.values().sum()), parts.join(", "))
}

/// Writes everything measured, single values included.
pub fn write_json(results: &Results, path: &Path) -> Result<()> {
    let setting: Vec<_> = results.setting.iter().map(|(key, value)| json!([key, value])).collect();
    let rows: Vec<_> = results.rows.iter().map(|row| json_row(results, row)).collect();
    let all = json!({
        "setting": setting,
        "systems": results.systems,
        "rows": rows,
        "left_out": results.left_out,
        "failures": results.failures,
    });
    let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, &all)?;
    Ok(file.flush()?)
}

fn json_row(results: &Results, row: &Row) -> Value {
    let mut systems = serde_json::Map::new();
    for (i, (name, cell)) in results.systems.iter().zip(&row.cells).enumerate() {
        let (spread, counts) = (cell.spread(), cell.counts.as_ref());
        if spread.is_none() && counts.is_none() {
            continue;
        }
        let value = json!({
            "values": cell.values,
            "median": spread.map(|s| s.median),
            "min": spread.map(|s| s.min),
            "max": spread.map(|s| s.max),
            "ratio_to_kernel": row.ratio(i, results.kernel),
            "requests": counts.map(|c| &c.requests),
            "syscalls": counts.map(|c| &c.syscalls),
        });
        systems.insert(name.clone(), value);
    }
    json!({
        "workload": row.workload,
        "part": row.part,
        "unit": match row.unit {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
        },
        "operations": row.ops,
        "systems": systems,
    })
}
