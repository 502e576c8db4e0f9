//! Python's `random.Random`, so that a simulation here meets the very same arrivals as one in Python: the Mersenne
//! Twister (Matsumoto and Nishimura, 1998), seeded and sampled as CPython 3.11 does (`Modules/_randommodule.c`,
//! `Lib/random.py`).

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// A generator that returns what Python's returns for the same seed.
pub struct PythonRandom {
    state: [u32; SIZE],
    next: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [19_650_218u32; SIZE];
        for at in 1..SIZE {
            let before = state[at - 1];
            state[at] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(at as u32);
        }
        // `init_by_array` with a key of one word.
        let mut at = 1;
        for _ in 0..SIZE {
            let before = state[at - 1];
            state[at] = (state[at] ^ (before ^ (before >> 30)).wrapping_mul(1_664_525)).wrapping_add(seed);
            at = wrap(&mut state, at + 1);
        }
        for _ in 1..SIZE {
            let before = state[at - 1];
            state[at] = (state[at] ^ (before ^ (before >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(at as u32);
            at = wrap(&mut state, at + 1);
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE }
    }

    /// `random()`: from 0 to below 1, with 53 bits.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `expovariate(rate)`.
    pub fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.unit()).ln() / rate
    }

    /// `lognormvariate(mu, sigma)`, by Kinderman and Monahan's ratio of uniforms.
    pub fn log_normal(&mut self, mu: f64, sigma: f64) -> f64 {
        let magic = 4.0 * (-0.5f64).exp() / 2.0f64.sqrt();
        loop {
            let first = self.unit();
            let second = 1.0 - self.unit();
            let z = magic * (first - 0.5) / second;
            if z * z / 4.0 <= -second.ln() {
                return (mu + z * sigma).exp();
            }
        }
    }

    fn word(&mut self) -> u32 {
        if self.next == SIZE {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for at in 0..SIZE {
            let joined = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % SIZE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + MIDDLE) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// The index after the last is 1, with the last word carried to the front.
fn wrap(state: &mut [u32; SIZE], at: usize) -> usize {
    if at < SIZE {
        return at;
    }
    state[0] = state[SIZE - 1];
    1
}
