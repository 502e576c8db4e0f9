//! Which of a model's servers gets a request: the one that has read the prompt's beginning before, as long as that
//! does not load it more than the others; else the least loaded.
//!
//! Servers are ranked for a beginning by weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based
//! mappings to increase hit rates", 1998), so that one that goes or comes moves only its own share; the bound on load
//! is that of Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018.

/// A server's load may be so many hundredths of its share of all.
const BOUND: u64 = 125;

/// Requests of the size at hand by which a server may be ahead of its share, however little there is in all: so many
/// run side by side on a server without making each other slow.
const SLACK: u64 = 4;

/// A server that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The same for the same server, over restarts.
    pub hash: u64,
    /// Tokens that it has to read and write.
    pub load: u64,
    /// Its share of the load, against the others; not 0.
    pub weight: u64,
}

/// Picks one of the candidates. `prefix_hash` is the hash of the prompt's prefix; `tokens` is the request's size.
pub fn pick(candidates: &[Candidate], prefix_hash: Option<u64>, tokens: u64) -> Option<usize> {
    let all = 0..candidates.len();
    let least = all
        .clone()
        .min_by_key(|at| (per_weight(&candidates[*at]), std::cmp::Reverse(candidates[*at].weight)))?;
    let Some(prefix_hash) = prefix_hash.filter(|_| candidates.len() > 1) else {
        return Some(least);
    };
    let load: u128 = candidates.iter().map(|candidate| u128::from(candidate.load)).sum();
    let weight: u128 = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
    let fits = |candidate: &Candidate| {
        let share = (load + u128::from(tokens)).saturating_mul(u128::from(candidate.weight)) / weight.max(1);
        let most = share.saturating_mul(u128::from(BOUND)) / 100;
        let most = most.max(share + u128::from(tokens) * u128::from(SLACK));
        u128::from(candidate.load) + u128::from(tokens) <= most
    };
    let ranked = all.filter(|at| fits(&candidates[*at])).max_by(|one, other| {
        let rank = |at: &usize| rank(&candidates[*at], prefix_hash);
        rank(one).total_cmp(&rank(other))
    });
    Some(ranked.unwrap_or(least))
}

/// Load for the weight, in thousandths.
fn per_weight(candidate: &Candidate) -> u64 {
    candidate.load.saturating_add(1).saturating_mul(1000) / candidate.weight.max(1)
}

/// The rank of a server for a prefix: uniform for equal weights, in proportion for others.
#[allow(clippy::cast_precision_loss)]
fn rank(candidate: &Candidate, prefix_hash: u64) -> f64 {
    let mixed = mix(candidate.hash ^ mix(prefix_hash));
    let uniform = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    candidate.weight as f64 / -uniform.ln()
}

/// Every bit of the result depends on every bit of the number (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
