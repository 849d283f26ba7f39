//! The chart: for each row a bar per system, its time relative to the kernel's overlayfs.
//!
//! The scale is logarithmic and bars begin at 1: to the left is faster, to the right slower.

use std::fmt::Write;
use std::path::Path;

use crate::Result;
use crate::run::{Results, Row};
use crate::scene::Unit;

const LABEL_PX: f64 = 150.0;
const PLOT_PX: f64 = 600.0;
const BAR_PX: f64 = 11.0;
const GAP_PX: f64 = 10.0;
const TOP_PX: f64 = 60.0;
/// Ends of the scale; what lies outside is cut off, its number says so.
const LEAST: f64 = 0.125;
const GREATEST: f64 = 64.0;
const COLOURS: [&str; 6] = ["#9aa5b1", "#c9a227", "#d1495b", "#2e7d6b", "#3066be", "#8e5ea2"];

/// Writes the chart.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    Ok(std::fs::write(path, draw(results)?).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// Systems with a bar: all but the kernel.
fn shown(results: &Results) -> impl Iterator<Item = (usize, &str, &'static str)> {
    let names = results.systems.iter().enumerate();
    names
        .filter(|&(i, _)| Some(i) != results.kernel)
        .zip(COLOURS.into_iter().cycle())
        .map(|((i, name), colour)| (i, name.as_str(), colour))
}

fn draw(results: &Results) -> Result<String> {
    let has_bar = |row: &&Row| {
        let bars = shown(results).filter_map(|(i, ..)| row.ratio(i, results.kernel));
        row.unit == Unit::Seconds && bars.count() > 0
    };
    let rows: Vec<_> = results.rows.iter().filter(has_bar).collect();
    let row_px = shown(results).count() as f64 * BAR_PX + GAP_PX;
    let width = LABEL_PX + PLOT_PX + 60.0;
    let height = TOP_PX + rows.len() as f64 * row_px + 20.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="18" font-size="14">Time relative to the kernel's overlayfs (left of 1: faster)</text>
"#
    );
    let mut x = 10.0;
    for (_, name, colour) in shown(results) {
        writeln!(svg, r#"<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>"#)?;
        writeln!(svg, r#"<text x="{}" y="37">{}</text>"#, x + 14.0, escaped(name))?;
        x += 30.0 + 7.0 * name.len() as f64;
    }
    draw_scale(&mut svg, height - 15.0)?;
    for (i, row) in rows.into_iter().enumerate() {
        draw_row(&mut svg, results, row, TOP_PX + i as f64 * row_px)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Where a ratio is on the horizontal axis.
fn position(ratio: f64) -> f64 {
    let clipped = ratio.clamp(LEAST, GREATEST);
    LABEL_PX + PLOT_PX * (clipped / LEAST).log2() / (GREATEST / LEAST).log2()
}

fn draw_scale(svg: &mut String, bottom: f64) -> Result<()> {
    let mut tick = LEAST;
    while tick <= GREATEST {
        let x = position(tick);
        let colour = if tick == 1.0 { "#333" } else { "#ddd" };
        let y = TOP_PX - 5.0;
        writeln!(
            svg,
            r#"<line x1="{x:.1}" y1="{y}" x2="{x:.1}" y2="{bottom}" stroke="{colour}"/>"#
        )?;
        let y = TOP_PX - 8.0;
        writeln!(
            svg,
            r#"<text x="{x:.1}" y="{y}" text-anchor="middle" fill="dimgray">{tick}</text>"#
        )?;
        tick *= 2.0;
    }
    Ok(())
}

fn draw_row(svg: &mut String, results: &Results, row: &Row, top: f64) -> Result<()> {
    let bars = shown(results).count() as f64;
    let (x, y) = (LABEL_PX - 8.0, top + bars * BAR_PX / 2.0 + 4.0);
    let label = escaped(&row.label());
    writeln!(svg, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#)?;
    for (line, (i, _, colour)) in shown(results).enumerate() {
        let Some(ratio) = row.ratio(i, results.kernel) else {
            continue;
        };
        let y = top + line as f64 * BAR_PX;
        let (left, right) = (position(ratio.min(1.0)), position(ratio.max(1.0)));
        let (width, height) = (right - left, BAR_PX - 1.0);
        writeln!(
            svg,
            r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{colour}"/>"#
        )?;
        let (x, y) = (right + 4.0, y + BAR_PX - 2.5);
        writeln!(
            svg,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="9" fill="dimgray">{ratio:.2}</text>"#
        )?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
