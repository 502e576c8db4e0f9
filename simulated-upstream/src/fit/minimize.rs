//! The lowest point of a function of several numbers, without its slope: a compass search (Hooke and Jeeves, "Direct Search
//! Solution of Numerical and Statistical Problems", 1961). It steps along one number after the other, goes on in the
//! direction that has helped, and halves its steps where none helps; steps in the function do not stop it.

/// The first step. The numbers are logarithms, so this is a factor of 2.7.
const FIRST: f64 = 1.0;
/// The last step: 1 %.
const LAST: f64 = 0.01;
/// Rounds over all numbers, at most.
const ROUNDS: usize = 200;

/// A point near `start` at which `of` is low.
pub(super) fn minimize(start: &[f64], of: &impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let (mut point, mut value) = (start.to_vec(), of(start));
    let mut step = FIRST;
    for _ in 0..ROUNDS {
        let before = point.clone();
        let explored = explore(&point, value, step, of);
        if explored.1 >= value {
            step /= 2.0;
            if step < LAST {
                break;
            }
            continue;
        }
        (point, value) = explored;
        // As far again in the direction of this round.
        let further: Vec<f64> = point.iter().zip(&before).map(|(now, then)| 2.0 * now - then).collect();
        let there = of(&further);
        if there < value {
            (point, value) = (further, there);
        }
    }
    point
}

/// The best point after a step along each number, up or down, where that helps.
fn explore(from: &[f64], value: f64, step: f64, of: &impl Fn(&[f64]) -> f64) -> (Vec<f64>, f64) {
    let (mut point, mut value) = (from.to_vec(), value);
    for at in 0..point.len() {
        for sign in [step, -step] {
            let mut tried = point.clone();
            tried[at] += sign;
            let there = of(&tried);
            if there < value {
                (point, value) = (tried, there);
                break;
            }
        }
    }
    (point, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_a_slanted_bowl_with_steps_in_it_is_found() {
        let bowl = |at: &[f64]| {
            let (x, y) = (at[0] - 3.0, at[1] + 2.0);
            (x * x + y * y + x * y) + ((at[0] * 50.0).floor() / 50.0 - 3.0).abs() * 0.01
        };
        let found = minimize(&[0.0, 0.0], &bowl);
        assert!(
            (found[0] - 3.0).abs() < 0.05 && (found[1] + 2.0).abs() < 0.05,
            "{found:?}"
        );
    }
}
