//! The ways in which models wrap a program in a reply, each as a function of a problem and a body for its function.
//! They follow replies that were reported for real models and servers; the texts are ours.

mod agents;
mod damage;
mod fences;
mod prose;
mod reasoning;

/// A problem of `HumanEval`, and two bodies for its function: one to reply with, and one that is only considered.
pub(crate) struct Parts {
    pub(crate) task_id: String,
    pub(crate) prompt: String,
    pub(crate) entry_point: String,
    pub(crate) body: String,
    /// Right where the body is wrong, and the other way around: a reply is judged by its answer alone.
    pub(crate) draft: String,
}

impl Parts {
    /// Code before the requested function: imports, and functions that it may call.
    pub(crate) fn head(&self) -> &str {
        &self.prompt[..self.definition()]
    }

    fn definition(&self) -> usize {
        let definition = format!("def {}(", self.entry_point);
        self.prompt.rfind(&definition).expect("a prompt defines its function")
    }

    /// The function alone, with its docstring.
    pub(crate) fn function(&self) -> String {
        format!("{}{}", &self.prompt[self.definition()..], self.body)
    }

    /// The whole program.
    pub(crate) fn program(&self) -> String {
        format!("{}{}", self.prompt, self.body)
    }

    pub(crate) fn draft_program(&self) -> String {
        format!("{}{}", self.prompt, self.draft)
    }

    pub(crate) fn signature(&self) -> &str {
        self.prompt[self.definition()..].lines().next().expect("a line")
    }
}

pub(crate) type Style = (&'static str, fn(&Parts) -> String);

/// All styles.
pub(crate) fn all() -> Vec<Style> {
    [
        fences::STYLES,
        prose::STYLES,
        reasoning::STYLES,
        damage::STYLES,
        agents::STYLES,
    ]
    .concat()
}

/// The text with blanks before each line that is not empty.
pub(crate) fn indented(text: &str, by: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.trim().is_empty() {
            String::new()
        } else {
            format!("{by}{line}")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
