//! The layers of the sandbox, and whether each of them holds on this machine.

use serde::{Deserialize, Serialize};

/// One thing that stands between a program and the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layer {
    User,
    Pid,
    Network,
    Ipc,
    Mount,
    Limits,
    Files,
    Landlock,
    Seccomp,
}

impl Layer {
    /// Its name, and what it is good for.
    pub(crate) fn told(self) -> (&'static str, &'static str) {
        match self {
            Layer::User => ("user namespace", "runs as nobody, with no rights over anything outside"),
            Layer::Pid => (
                "PID namespace",
                "sees no other process; its end ends whatever it has begun",
            ),
            Layer::Network => ("network namespace", "has no network, not even this machine's"),
            Layer::Ipc => ("IPC namespace", "shares no memory and no messages"),
            Layer::Mount => (
                "mount namespace",
                "sees Python, its libraries, and a directory of 64 MB in memory",
            ),
            Layer::Limits => ("rlimits", "processor time, memory, files, processes"),
            Layer::Files => ("no inherited files, no environment", "only the pipe to whoever asks"),
            Layer::Landlock => (
                "landlock",
                "opens Python's files, writes to nothing but the directory in memory, connects to nothing",
            ),
            Layer::Seccomp => ("seccomp", "a list of system calls that Python needs, and no other"),
        }
    }
}

/// Whether a layer holds; if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) layer: Layer,
    pub(crate) why_not: Option<String>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layers(pub(crate) Vec<Held>);

impl Layers {
    /// Notes how setting one up went.
    pub(crate) fn note(&mut self, layer: Layer, done: Result<(), String>) {
        self.0.push(Held {
            layer,
            why_not: done.err(),
        });
    }

    /// What was noted to hold does not, after all.
    pub(crate) fn does_not_hold(&mut self, layer: Layer, why: String) {
        if let Some(held) = self.0.iter_mut().find(|held| held.layer == layer) {
            held.why_not = Some(why);
        }
    }

    pub(crate) fn holds(&self, layer: Layer) -> bool {
        self.0.iter().any(|held| held.layer == layer && held.why_not.is_none())
    }

    /// Whether it is a sandbox: namespaces, or landlock with seccomp.
    pub(crate) fn are_enough(&self) -> bool {
        let all = |layers: &[Layer]| layers.iter().all(|layer| self.holds(*layer));
        all(&[Layer::User, Layer::Pid, Layer::Network, Layer::Mount]) || all(&[Layer::Landlock, Layer::Seccomp])
    }

    /// A line a layer.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|held| {
            let (name, good_for) = held.layer.told();
            match &held.why_not {
                None => format!("holds          {name}: {good_for}"),
                Some(why) => format!("DOES NOT HOLD  {name}: {why}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_namespaces_or_landlock_with_seccomp_are_enough() {
        let with = |held: &[Layer]| {
            let mut layers = Layers::default();
            for layer in [
                Layer::User,
                Layer::Pid,
                Layer::Network,
                Layer::Mount,
                Layer::Landlock,
                Layer::Seccomp,
            ] {
                layers.note(layer, held.contains(&layer).then_some(()).ok_or("no".to_owned()));
            }
            layers.are_enough()
        };
        assert!(with(&[Layer::User, Layer::Pid, Layer::Network, Layer::Mount]));
        assert!(with(&[Layer::Landlock, Layer::Seccomp]));
        assert!(!with(&[Layer::User, Layer::Pid, Layer::Network, Layer::Seccomp]));
        assert!(!with(&[]));
    }
}
