//! A plan's results, as a table and as a picture.

use crate::plan::{Outcome, Run};
pub use crate::slo::Slo;
use std::fmt::Write;

/// The table.
pub fn table(run: &Run, slo: Slo) -> String {
    let mut text = String::from("                      p50       p90       p99      mean\n");
    let mut row = |name: &str, unit: &str, scale: f64, of: fn(&Outcome) -> f64| {
        let _ = write!(text, "{name:<16}");
        for part in [0.5, 0.9, 0.99] {
            let _ = write!(text, "{:>10.1}", run.percentile(part, of) * scale);
        }
        let _ = writeln!(text, "{:>10.1} {unit}", run.mean(of) * scale);
    };
    row("first token", "ms", 1000.0, Outcome::ttft);
    row("token after it", "ms", 1000.0, Outcome::tpot);
    row("end to end", "s", 1.0, Outcome::end_to_end);
    let requests = run.outcomes.len();
    let _ = writeln!(text, "\nrequests        {requests:>10}");
    if run.impossible > 0 {
        let _ = writeln!(
            text,
            "too long        {:>10} (never fit into the memory of a server)",
            run.impossible
        );
    }
    let _ = writeln!(text, "throughput      {:>10.0} tokens/s", run.throughput());
    let good = run.goodput(slo);
    let share = run.goodput(Slo::default());
    let _ = writeln!(
        text,
        "goodput         {good:>10.2} requests/s ({:.1} % of all)",
        100.0 * good / share.max(1e-9)
    );
    let _ = writeln!(
        text,
        "memory in use   {:>10.1} % at most, {:.1} % on average",
        run.kv_most * 100.0,
        run.kv_mean * 100.0
    );
    let _ = writeln!(text, "preempted       {:>10} times", run.preemptions);
    text
}

/// The picture: how many requests the servers have, how many of them wait, and the time to first token, over time.
#[allow(clippy::cast_precision_loss)]
pub fn plot(run: &Run, title: &str) -> String {
    const WIDTH: f64 = 900.0;
    let seconds = run.load.len().max(2) as f64 - 1.0;
    let most = run.load.iter().map(|(all, _)| *all).max().unwrap_or(0).max(1) as f64;
    let slowest = run.percentile(0.999, Outcome::ttft).max(0.001);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 560\" font-family=\"sans-serif\" font-size=\"13\">\
         <rect width=\"1000\" height=\"560\" fill=\"white\"/><text x=\"60\" y=\"24\" font-size=\"16\">{}</text>",
        title.replace('&', "&amp;").replace('<', "&lt;")
    );
    let line = |svg: &mut String, of: &dyn Fn(&(usize, usize)) -> usize, colour: &str| {
        let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"");
        for (second, load) in run.load.iter().enumerate() {
            let x = 60.0 + second as f64 / seconds * WIDTH;
            let y = 250.0 - of(load) as f64 / most * 200.0;
            let _ = write!(svg, "{x:.1},{y:.1} ");
        }
        svg.push_str("\"/>");
    };
    line(&mut svg, &|load| load.0, "#1f77b4");
    line(&mut svg, &|load| load.1, "#d62728");
    let _ = write!(
        svg,
        "<text x=\"60\" y=\"46\" fill=\"#1f77b4\">requests at the servers (at most {most})</text>\
         <text x=\"330\" y=\"46\" fill=\"#d62728\">of them waiting</text><path d=\"M60 50V250H960\" fill=\"none\" stroke=\"black\"/>\
         <text x=\"60\" y=\"296\">time to first token, each request; the top is {slowest:.2} s</text>\
         <path d=\"M60 300V520H960\" fill=\"none\" stroke=\"black\"/><text x=\"60\" y=\"540\">0 s</text>\
         <text x=\"960\" y=\"540\" text-anchor=\"end\">{seconds:.0} s</text><g fill=\"#2ca02c\" fill-opacity=\"0.4\">"
    );
    // A picture needs no more than some thousand dots.
    for outcome in run.outcomes.iter().step_by(run.outcomes.len().div_ceil(5000).max(1)) {
        let x = 60.0 + (outcome.arrival.at.as_secs_f64() / seconds).min(1.0) * WIDTH;
        let y = 520.0 - (outcome.ttft() / slowest).min(1.0) * 220.0;
        let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.5\"/>");
    }
    svg.push_str("</g></svg>\n");
    svg
}
