//! The layers of the sandbox, and whether each of them holds on this machine.

use serde::{Deserialize, Serialize};

/// One layer between a program and the machine.
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
    Clock,
    Directory,
}

impl Layer {
    /// Its name, and what it does.
    pub(crate) fn description(self) -> (&'static str, &'static str) {
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
            Layer::Files => ("no inherited files, no environment", "only the pipe to the evaluator"),
            Layer::Landlock => (
                "landlock",
                "opens Python's files, writes to nothing but the directory in memory, connects to nothing",
            ),
            Layer::Seccomp => ("seccomp", "a list of system calls that Python needs, and no other"),
            Layer::Clock => ("wall clock", "ends all that a program has begun after --code-timeout"),
            Layer::Directory => ("private directory", "its own, removed after"),
        }
    }
}

/// The state of a layer; if it does not hold, the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerStatus {
    pub(crate) layer: Layer,
    pub(crate) why_not: Option<String>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layers(pub(crate) Vec<LayerStatus>);

impl Layers {
    /// Notes how setting one up went; a second attempt at the same layer counts.
    pub(crate) fn note(&mut self, layer: Layer, result: Result<(), String>) {
        let why_not = result.err();
        match self.0.iter_mut().find(|status| status.layer == layer) {
            Some(status) => status.why_not = why_not,
            None => self.0.push(LayerStatus { layer, why_not }),
        }
    }

    /// Corrects a layer that was noted to hold.
    pub(crate) fn does_not_hold(&mut self, layer: Layer, why: String) {
        if let Some(status) = self.0.iter_mut().find(|status| status.layer == layer) {
            status.why_not = Some(why);
        }
    }

    pub(crate) fn holds(&self, layer: Layer) -> bool {
        self.0
            .iter()
            .any(|status| status.layer == layer && status.why_not.is_none())
    }

    /// Returns whether they are a sandbox. Without a root of its own a program can find out which files a machine has
    /// (no layer beside the mount namespace refuses `stat`), so landlock and seccomp alone are not enough.
    pub(crate) fn are_enough(&self) -> bool {
        [Layer::User, Layer::Pid, Layer::Network, Layer::Mount]
            .into_iter()
            .all(|layer| self.holds(layer))
    }

    /// `9 of 11 layers hold`.
    pub(crate) fn count(&self) -> String {
        let holding = self.0.iter().filter(|status| status.why_not.is_none()).count();
        format!("{holding} of {} layers hold", self.0.len())
    }

    /// A line a layer.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|status| {
            let (name, does) = status.layer.description();
            match &status.why_not {
                None => format!("holds          {name}: {does}"),
                Some(why) => format!("DOES NOT HOLD  {name}: {why}"),
            }
        })
    }

    /// The lines of those that do not hold.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.lines().filter(|line| line.starts_with("DOES NOT")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_make_a_sandbox() {
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
            layers
        };
        let namespaces = with(&[Layer::User, Layer::Pid, Layer::Network, Layer::Mount]);
        assert!(namespaces.are_enough());
        assert_eq!(namespaces.count(), "4 of 6 layers hold");
        assert_eq!(namespaces.missing().len() + 4, namespaces.lines().count());
        assert!(!with(&[Layer::Landlock, Layer::Seccomp]).are_enough());
        assert!(!with(&[Layer::User, Layer::Pid, Layer::Network, Layer::Seccomp]).are_enough());
        assert!(!with(&[]).are_enough());
    }

    #[test]
    fn a_layer_that_is_tried_twice_is_counted_once() {
        let mut layers = Layers::default();
        layers.note(Layer::User, Err("no".to_owned()));
        layers.note(Layer::User, Ok(()));
        assert_eq!(layers.count(), "1 of 1 layers hold");
    }
}
