//! Data sets of every format: right answers pass, wrong ones fail.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::{eval, output_text, rows, summary};
use tempfile::TempDir;

fn write(dir: &Path, name: &str, lines: &[Value]) {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(dir.join(name), text.join("\n")).expect("writable");
}

/// Judges replies to `set.jsonl`; the errors, empty where a reply passed, in the order of the data set.
fn errors(dir: &Path, replies: &[Value]) -> Vec<String> {
    write(dir, "replies.jsonl", replies);
    let args = [
        "check",
        "replies.jsonl",
        "--local-dataset",
        "set.jsonl",
        "--num-problems",
        "all",
        "--out",
        "out",
    ];
    let output = eval(dir, &args);
    assert!(output.status.success(), "{}", output_text(&output));
    rows(&dir.join("out"))
        .iter()
        .map(|row| row["error_type"].clone())
        .collect()
}

fn verify(dir: &Path) -> std::process::Output {
    eval(
        dir,
        &[
            "verify",
            "-v",
            "--local-dataset",
            "set.jsonl",
            "--num-problems",
            "all",
            "--out",
            "out",
        ],
    )
}

#[test]
fn mbpp_is_judged_by_its_assertions() {
    let dir = TempDir::new().expect("a directory");
    let remove = json!({
        "task_id": 11, "text": "Write a python function to remove first and last occurrence of a given character.",
        "code": "def remove_Occ(s, ch):\n    return s",
        "test_list": ["assert remove_Occ(\"hello\",\"l\") == \"heo\"", "assert remove_Occ(\"abcda\",\"a\") == \"bcd\""],
        "test_setup_code": "",
    });
    let pairs = json!({
        "task_id": 601, "text": "Write a function with pairs.", "code": "def longest(pairs): ...",
        "test_list": ["assert longest([Pair(5, 24), Pair(15, 25)]) == 2"], "test_setup_code": "",
    });
    write(dir.path(), "set.jsonl", &[remove, pairs]);
    let right = [
        json!({"task_id": 11, "completion": "```python\ndef remove_Occ(s, ch):\n    s = s.replace(ch, '', 1)\n    return s[::-1].replace(ch, '', 1)[::-1]\n```"}),
        json!({"task_id": 601, "completion": "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n\ndef longest(pairs):\n    return len([p.a for p in pairs])\n"}),
    ];
    assert_eq!(errors(dir.path(), &right), ["", ""]);
    let wrong = [
        json!({"task_id": 11, "completion": "def remove_Occ(s, ch):\n    return s"}),
        json!({"task_id": 601, "completion": "def longest(pairs):\n    return 2"}),
    ];
    assert_eq!(errors(dir.path(), &wrong), ["AssertionError", "NameError"]);
}

#[test]
fn evalplus_counts_base_and_all_inputs_apart() {
    let dir = TempDir::new().expect("a directory");
    // EvalPlus's file has HumanEval's `test` beside its own inputs.
    let area = json!({
        "task_id": "HumanEval/45", "prompt": "def triangle_area(a, h):\n    \"\"\"Half of a times h.\"\"\"\n",
        "entry_point": "triangle_area", "canonical_solution": "    return a * h / 2.0\n", "test": "def check(candidate):\n    pass\n",
        "contract": "    assert a >= 0 and h >= 0, \"no length\"\n",
        "base_input": [[5, 3]], "plus_input": [[2.5, 7], [1e9, 3]], "atol": 1e-6,
    });
    write(dir.path(), "set.jsonl", std::slice::from_ref(&area));
    let reply = |code: &str| json!({"task_id": "HumanEval/45", "completion": code});
    let replies = [
        reply("    return h * a * 0.5"),
        reply("    return a * h // 2 + 0.5"),
        reply("    return a * h // 2"),
        reply("    return a * h / 2 if a < 1e8 else 1 / 0"),
        reply("    while a > 1e8: pass\n    return a * h / 2"),
    ];
    let found = errors(dir.path(), &replies);
    assert_eq!(
        found,
        [
            "",
            "AssertionError",
            "AssertionError",
            "ZeroDivisionError",
            "execution_timeout"
        ]
    );
    let base: Vec<String> = rows(&dir.path().join("out"))
        .iter()
        .map(|row| row["base_passed"].clone())
        .collect();
    assert_eq!(base, ["true", "true", "false", "true", "true"]);
    let summary = summary(&dir.path().join("out"));
    assert_eq!(
        (&summary["pass_at_1"], &summary["base_pass_at_1"]),
        (&json!(0.2), &json!(0.8))
    );
    assert!(verify(dir.path()).status.success());
    let mut broken = area;
    broken["plus_input"] = json!([[-1, 2]]);
    write(dir.path(), "set.jsonl", &[broken]);
    let output = verify(dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output_text(&output).contains("triangle_area(-1, 2) breaks the contract: no length"),
        "{}",
        output_text(&output)
    );
}

#[test]
fn infinity_and_large_integers_are_compared_exactly() {
    let dir = TempDir::new().expect("a directory");
    let text = r#"{"task_id": "own/1", "prompt": "def same(x):\n    \"\"\"x\"\"\"\n", "entry_point": "same", "canonical_solution": "    return x\n", "base_input": [[100000000000000000000000000000], [0], [Infinity], [-Infinity]]}"#;
    std::fs::write(dir.path().join("set.jsonl"), text).expect("writable");
    let reply = |code: &str| json!({"task_id": "own/1", "completion": code});
    let replies = [
        reply("    return x"),
        reply("    return -5 if x == float('inf') else x"),
        reply("    return float(x) if x > 10 else x"),
        reply("    return x + 1 if 10 < x < float('inf') else x"),
        reply("    return 1e300 if x == float('inf') else x"),
        reply("    return False if x == 0 else x"),
    ];
    // `False == 0` in Python, and in EvalPlus.
    let wrong = "AssertionError";
    assert_eq!(errors(dir.path(), &replies), ["", wrong, wrong, wrong, wrong, ""]);
}

/// A problem of `LiveCodeBench`'s; its private cases are hidden as the data set hides them, by Python 3.11.
fn livecodebench(id: &str, public: &Value, private: &str, metadata: &Value, starter: &str) -> Value {
    json!({
        "question_title": id, "question_content": "Square the number.", "platform": "atcoder", "question_id": id,
        "starter_code": starter, "difficulty": "easy", "public_test_cases": public.to_string(),
        "private_test_cases": private, "metadata": metadata.to_string(),
    })
}

#[test]
fn livecodebench_runs_scripts_and_methods() {
    let dir = TempDir::new().expect("a directory");
    // Hidden are: "3\n" gives "9\n"; and [], 1 gives [], [5], 2 gives [10].
    let script = livecodebench(
        "abc_a",
        &json!([{"input": "2\n", "output": "4\n", "testtype": "stdin"}]),
        "eJxrYJlqwwABPRbR1UqZeQWlJUpWCkrGMXlKOgpK+aUlUAFLiEBJanFJSWVBKkiouCQlM0+pNnaKHgCWMBRP",
        &json!({}),
        "",
    );
    let method = livecodebench(
        "3000",
        &json!([{"input": "[1, 2]\n3", "output": "[3, 6]", "testtype": "functional"}]),
        "eJxrYJnazAABPfXR1UqZeQWlJUpWCkrRsTF5hko6Ckr5pSVwIRC/JLW4pKSyIBUkklaal1ySmZ+XmKNUq6OArNsUqN0ITbuhAV4DYqfoAQCdFytz",
        &json!({"func_name": "scale"}),
        "class Solution:\n    def scale(self, items: List[int], by: int) -> List[int]:\n        ",
    );
    write(dir.path(), "set.jsonl", &[script, method]);
    let script = |code: &str| json!({"task_id": "LiveCodeBench/abc_a", "completion": code});
    let method = |code: &str| json!({"task_id": "LiveCodeBench/3000", "completion": code});
    let replies = [
        script("```python\nn = int(input())\nprint(n * n)\n```"),
        script(
            "First:\n```python\nimport sys\n```\nThen:\n```python\nn = int(sys.stdin.readline())\nsys.stdout.write(f'{n * n} \\n\\n')\n```",
        ),
        script(
            "```python\nimport sys, os\n\ndef main():\n    n = int(open(0).read())\n    os.write(1, b'%d' % (n * n))\n\nif __name__ == '__main__':\n    main()\n    sys.exit(0)\n```",
        ),
        script("```python\nprint(4.0 if int(input()) == 2 else 9)\n```"),
        script("```python\nprint(4)\n```"),
        script("```python\nn = int(input())\nprint(n * n)\nprint(n)\n```"),
        script("I do not know."),
        script("```python\nint(input() + 'x')\n```"),
        method(
            "```python\nclass Solution:\n    def scale(self, items: List[int], by: int) -> List[int]:\n        return [by * x for x in items]\n```",
        ),
        method(
            "```python\nfrom typing import List\nclass Solution:\n    def scale(self, items: List[int], by: int) -> List[int]:\n        return tuple(by * x for x in items)\n```",
        ),
        method("```python\ndef scale(items, by):\n    return items\n```"),
    ];
    let found = errors(dir.path(), &replies);
    let (wrong, none) = ("AssertionError", "extraction_failed");
    assert_eq!(
        found,
        ["", "", "", "", wrong, wrong, none, "ValueError", "NameError", "", wrong],
        "{:?}",
        rows(&dir.path().join("out"))
    );
}

#[test]
fn tasks_of_ones_own_are_functions_or_scripts() {
    let dir = TempDir::new().expect("a directory");
    let page = std::fs::read_to_string(support::root().join("docs/quality-evaluator.md")).expect("the page");
    // The example of the page itself.
    let example = page
        .split("```jsonl\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("an example of tasks");
    std::fs::write(dir.path().join("set.jsonl"), example).expect("writable");
    let output = verify(dir.path());
    assert!(output.status.success(), "{}", output_text(&output));
    let lines = example.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let tasks: Vec<Value> = lines.collect();
    assert!(tasks.len() >= 3);
    let replies: Vec<Value> = tasks
        .iter()
        .map(|task| {
            let name = task["entry_point"].as_str().unwrap_or("main");
            let code = format!("```python\ndef {name}(*args):\n    return print(None)\n\n{name}(input)\n```");
            json!({"task_id": task["task_id"], "completion": code})
        })
        .collect();
    assert!(
        errors(dir.path(), &replies)
            .iter()
            .all(|error| error == "AssertionError")
    );
}

#[test]
fn an_invalid_data_set_is_refused_with_the_problem() {
    let dir = TempDir::new().expect("a directory");
    for (task, message) in [
        (
            json!({"task_id": "a", "prompt": "p", "cases": []}),
            "`cases` must be a list",
        ),
        (
            json!({"task_id": "a", "prompt": "p", "cases": [{"args": [1], "returns": 1}]}),
            "`entry_point` is missing",
        ),
        (
            json!({"task_id": "a", "prompt": "p", "stdin_tests": [{"input": "1"}]}),
            "`stdin_tests` must be a list",
        ),
        (
            json!({"question_content": "q", "question_id": "a"}),
            "it has no test cases",
        ),
    ] {
        write(dir.path(), "set.jsonl", &[task]);
        let output = verify(dir.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(
            output_text(&output).contains(&format!("set.jsonl: problem 1: a: {message}")),
            "{}",
            output_text(&output)
        );
    }
}
