//! Drawings as SVG, without a script.

use std::fmt::Write;

pub(super) const WIDTH: f64 = 880.0;
pub(super) const HEIGHT: f64 = 220.0;
pub(super) const COLOURS: [&str; 6] = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2"];

pub(super) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}\
    table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ccc;padding:.25rem .75rem;text-align:right}\
    td:first-child,th:first-child{text-align:left}.run td{text-align:left;overflow-wrap:anywhere}svg{max-width:100%;height:auto}\
    .key span{margin-right:1rem}.warning{border-left:4px solid #dc2626;padding:.25rem .75rem}\
    @media(prefers-color-scheme:dark){body{color:#eee;background:#111}td,th{border-color:#444}svg text{fill:#eee}svg .axis{stroke:#eee}}";

/// The beginning of a page.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0} · sluice-stress</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><h1>{0}</h1>",
        escaped(title)
    )
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Begins a drawing, with its axes.
pub(super) fn begin(html: &mut String, label: &str) {
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 960 270\" role=\"img\" aria-label=\"{label}\" font-size=\"12\">\
         <path class=\"axis\" d=\"M50 10V{0}H{1}\" fill=\"none\" stroke=\"#111\"/>",
        10.0 + HEIGHT,
        50.0 + WIDTH
    );
}

/// Marks both axes, and ends a drawing.
pub(super) fn end(html: &mut String, most_x: &str, most_y: &str) {
    let _ = write!(
        html,
        "<text x=\"46\" y=\"20\" text-anchor=\"end\">{most_y}</text><text x=\"46\" y=\"230\" text-anchor=\"end\">0</text>\
         <text x=\"50\" y=\"248\">0</text><text x=\"930\" y=\"248\" text-anchor=\"end\">{most_x}</text></svg>"
    );
}

/// A line through points, each between 0 and 1 in both directions.
pub(super) fn line(html: &mut String, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
    let _ = write!(
        html,
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\""
    );
    for (x, y) in points {
        let (x, y) = place(x, y);
        let _ = write!(html, "{x:.1},{y:.1} ");
    }
    html.push_str("\"/>");
}

/// A dot.
pub(super) fn dot(html: &mut String, colour: &str, radius: u8, (x, y): (f64, f64)) {
    let (x, y) = place(x, y);
    let _ = write!(
        html,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" fill-opacity=\".6\"/>"
    );
}

fn place(x: f64, y: f64) -> (f64, f64) {
    (
        50.0 + x.clamp(0.0, 1.0) * WIDTH,
        10.0 + HEIGHT - y.clamp(0.0, 1.0) * HEIGHT,
    )
}

/// Names of the colours.
pub(super) fn key(html: &mut String, names: &[&str]) {
    html.push_str("<p class=\"key\">");
    for (name, colour) in names.iter().zip(COLOURS) {
        let _ = write!(html, "<span><b style=\"color:{colour}\">■</b> {}</span>", escaped(name));
    }
    html.push_str("</p>");
}
