//! Models side by side: intervals, paired tests, cost, and the curve of pass@k.

use crate::html;
use crate::journal;
use crate::pairs::{Pair, pairs};
use crate::score::{self, Sample, Scored};
use crate::statistics::real;
use crate::table::{cell, comparison, euros, percent};
use crate::terminal::visible;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The page's name.
pub(crate) const NAME: &str = "quality_comparison.md";
/// The curve's.
const CURVE: &str = "quality_pass_at_k.svg";

/// Compares runs that are done: the page is written to `out` and returned.
pub(crate) fn runs(dirs: &[PathBuf], out: &Path) -> Result<String, String> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut models: Vec<String> = Vec::new();
    let mut dataset = None;
    for dir in dirs {
        let (settings, mut run) = journal::load(dir)?;
        let sha256 = dataset.get_or_insert_with(|| settings.dataset_sha256.clone());
        if *sha256 != settings.dataset_sha256 {
            return Err(format!(
                "{}: the run has another data set than {}",
                dir.display(),
                dirs[0].display()
            ));
        }
        let names: BTreeSet<String> = run.iter().map(|sample| sample.model.clone()).collect();
        for name in names {
            // A model of two runs is two models here.
            let shown = if models.contains(&name) {
                format!("{name} ({})", dir.display())
            } else {
                name.clone()
            };
            for sample in run.iter_mut().filter(|sample| sample.model == name) {
                sample.model.clone_from(&shown);
            }
            models.push(shown);
        }
        samples.append(&mut run);
    }
    if models.len() < 2 {
        return Err("there is one model only; name several runs".to_owned());
    }
    let scored: Vec<Scored> = models
        .iter()
        .map(|model| {
            let of_model: Vec<&Sample> = samples.iter().filter(|sample| sample.model == *model).collect();
            score::score(model, &of_model)
        })
        .collect();
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let path = out.join(html::NAME);
    std::fs::write(
        &path,
        html::page(&["Runs side by side".to_owned()], false, &samples, &scored),
    )
    .map_err(|error| format!("{}: {error}", path.display()))?;
    write(out, &scored, &samples)
}

/// Writes the page and, where there are several samples a problem, the curve; returns the page.
pub(crate) fn write(out: &Path, scored: &[Scored], samples: &[Sample]) -> Result<String, String> {
    let models: Vec<String> = scored.iter().map(|one| one.model.clone()).collect();
    let has_curve = scored.iter().any(|one| one.pass_at_k.len() > 1);
    let page = page(scored, &pairs(&models, samples), has_curve);
    let save = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    save(NAME, &page)?;
    if has_curve {
        save(CURVE, &curve(scored))?;
    }
    Ok(page)
}

fn page(scored: &[Scored], pairs: &[Pair], has_curve: bool) -> String {
    let mut text = format!("# Comparison of {} models\n\n{}\n", scored.len(), comparison(scored));
    text.push_str(
        "The interval of pass@1 is Wilson's with one sample a problem, else a bootstrap over problems. Cost per passed is \
         the cost of all samples over those that passed.\n\n## Differences\n\n\
         | models | problems | difference in pass@1 | 95 % interval | better on | p |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for pair in pairs {
        let _ = writeln!(
            text,
            "| {} − {} | {} | {:+.1} | {:+.1} to {:+.1} | {} : {} | {} |",
            cell(&pair.model),
            cell(&pair.other),
            pair.problems,
            pair.difference * 100.0,
            pair.low * 100.0,
            pair.high * 100.0,
            pair.only_model,
            pair.only_other,
            p_value(pair.p)
        );
    }
    text.push_str(
        "\nDifferences are in percentage points, over the problems that both models were asked. *Better on* counts the \
         problems that the one solved more often : the other. *p* is McNemar's exact test on those counts, two-sided, \
         adjusted for the number of pairs by Holm's method; below 0.05 it is in bold.\n",
    );
    if has_curve {
        let _ = write!(
            text,
            "\n## pass@k\n\n![pass@k by k]({CURVE})\n\n{}",
            curve_table(scored)
        );
    }
    text
}

fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "**< 0.001**".to_owned(),
        p if p < 0.05 => format!("**{p:.3}**"),
        p => format!("{p:.3}"),
    }
}

fn ks(scored: &[Scored]) -> BTreeSet<usize> {
    scored.iter().flat_map(|one| one.pass_at_k.keys().copied()).collect()
}

fn curve_table(scored: &[Scored]) -> String {
    let ks = ks(scored);
    let mut text = "| model |".to_owned();
    for k in &ks {
        let _ = write!(text, " pass@{k} |");
    }
    let _ = write!(text, " cost per passed |\n|---|{}---:|\n", "---:|".repeat(ks.len()));
    for one in scored {
        let _ = write!(text, "| {} |", cell(&one.model));
        for k in &ks {
            let share = one.pass_at_k.get(k).map_or("–".to_owned(), |share| percent(*share));
            let _ = write!(text, " {share} |");
        }
        let _ = writeln!(text, " {} |", euros(one.cost_per_passed));
    }
    text
}

/// Colors that can be distinguished with any color vision (Okabe and Ito 2008).
const COLORS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// pass@k by k, on a logarithmic axis, as SVG.
fn curve(scored: &[Scored]) -> String {
    let (width, height, left, bottom) = (640.0, 360.0, 56.0, 320.0);
    let ks = ks(scored);
    let most = real(ks.last().copied().unwrap_or(1).max(2)).ln();
    let x = |k: usize| left + real(k).ln() / most * (width - left - 160.0);
    let y = |share: f64| bottom - share * (bottom - 20.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>pass@k by k</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let _ = writeln!(
            text,
            "<path d=\"M{left} {y:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{at}\" y=\"{y:.1}\" text-anchor=\"end\" \
             dominant-baseline=\"middle\">{label:.0} %</text>",
            y = y(share),
            end = width - 160.0,
            at = left - 6.0,
            label = share * 100.0
        );
    }
    for k in &ks {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{k}</text>",
            x(*k),
            bottom + 18.0
        );
    }
    for (at, one) in scored.iter().enumerate() {
        let color = COLORS[at % COLORS.len()];
        let points: Vec<String> = one
            .pass_at_k
            .iter()
            .map(|(k, share)| format!("{:.1},{:.1}", x(*k), y(*share)))
            .collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\" \
             fill=\"{color}\">{}</text>",
            points.join(" "),
            width - 150.0,
            30.0 + 16.0 * real(at),
            visible(&one.model).replace('&', "&amp;").replace('<', "&lt;")
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(model: &str, task: usize, number: usize, passed: bool) -> Sample {
        Sample::of(model, &task.to_string(), number, passed)
    }

    #[test]
    fn the_page_has_a_curve_where_there_are_several_samples() {
        let models = ["a<b".to_owned(), "c".to_owned()];
        let mut samples = Vec::new();
        for (model, share) in [("a<b", 2), ("c", 1)] {
            for task in 0..4 {
                samples.extend((0..5).map(|number| sample(model, task, number, number < share)));
            }
        }
        let scored: Vec<Scored> = models
            .iter()
            .map(|model| {
                score::score(
                    model,
                    &samples
                        .iter()
                        .filter(|sample| sample.model == *model)
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        let dir = tempfile::TempDir::new().expect("a directory");
        let page = write(dir.path(), &scored, &samples).expect("written");
        // 1 - C(3,2)/C(5,2) = 0.7, and 1 - C(4,2)/C(5,2) = 0.4.
        assert!(page.contains("| a&lt;b | 40.0 % | 70.0 % | 100.0 % |"), "{page}");
        assert!(page.contains("| c | 20.0 % | 40.0 % | 100.0 % |"), "{page}");
        let svg = std::fs::read_to_string(dir.path().join(CURVE)).expect("a curve");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">a&lt;b</text>"), "{svg}");
    }
}
