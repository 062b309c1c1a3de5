//! Texts as the shell and Python take them, whatever is in them.

use serde_json::Value;

/// One word of a shell command.
pub(super) fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A Python string literal. JSON's is one: its escapes are Python's too.
pub(super) fn python_string(text: &str) -> String {
    Value::from(text).to_string()
}

/// A command that runs Python code, with `arguments` behind it as shell text.
///
/// The code is a quoted here-document (bash(1), "Here Documents"): nothing in it is expanded, and it ends at a line that is the
/// delimiter, which occurs nowhere in the code.
pub(super) fn python(source: &str, arguments: &str) -> String {
    // The shell cannot hold a NUL. Python can, in an escape, and says of it what it says of one in a file.
    let source = match source.contains('\0') {
        true => format!("exec(compile({}, \"code\", \"exec\"))\n", python_string(source)),
        false => source.to_owned(),
    };
    let delimiter = delimiter(&source);
    let line_end = if source.ends_with('\n') { "" } else { "\n" };
    format!("python3 -{arguments} <<'{delimiter}'\n{source}{line_end}{delimiter}\n")
}

/// `PYTHON`, followed by one underscore more than it is followed by anywhere in `source`.
fn delimiter(source: &str) -> String {
    const WORD: &str = "PYTHON";
    let followers = source
        .match_indices(WORD)
        .map(|(at, _)| {
            let behind = &source.as_bytes()[at + WORD.len()..];
            behind.iter().take_while(|byte| **byte == b'_').count() + 1
        })
        .max();
    format!("{WORD}{}", "_".repeat(followers.unwrap_or(0)))
}

/// Python code that runs a bash command, for a tool version that has Python only.
pub(super) fn bash_from_python(command: &str) -> String {
    format!(
        "import subprocess, sys\n\
         done = subprocess.run([\"bash\", \"-c\", {}], capture_output=True, text=True, errors=\"replace\")\n\
         sys.stdout.write(done.stdout)\n\
         sys.stderr.write(done.stderr)\n\
         if done.returncode:\n    \
             raise SystemExit(done.returncode)\n",
        python_string(command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs `command` as the sandbox does, and gives stdout.
    fn bash(command: &str, environment: &[(&str, &str)]) -> String {
        let ended =
            Command::new("bash").args(["-c", command]).envs(environment.iter().copied()).output().expect("bash runs");
        assert!(ended.status.success(), "{command}: {ended:?}");
        String::from_utf8(ended.stdout).expect("UTF-8")
    }

    #[test]
    fn a_word_is_one_word() {
        let hostile = [
            "plain.csv",
            "",
            "it's.csv",
            "''''",
            "$(touch /tmp/x).csv",
            "`id`.csv",
            "a\nb.csv",
            "\\",
            "\"$HOME\" ; exit 3 #",
            "-rf *",
            "世界 🐚.csv",
        ];
        for text in hostile {
            let command = format!("printf '%s' {}", word(text));
            assert_eq!(bash(&command, &[]), text);
        }
    }

    #[test]
    fn the_delimiter_is_nowhere_in_the_code() {
        let cases = [
            ("", "PYTHON"),
            ("print(1)", "PYTHON"),
            ("PYTHO", "PYTHON"),
            ("PYTHON", "PYTHON_"),
            ("PYTHON_\nPYTHON", "PYTHON__"),
            ("xPYTHON___PYTHON__", "PYTHON____"),
        ];
        for (source, expected) in cases {
            assert_eq!(delimiter(source), expected, "{source:?}");
            assert!(!source.contains(expected));
        }
    }

    #[test]
    fn python_gets_the_code_as_it_is() {
        let hostile = [
            "PYTHON",
            "PYTHON\nPYTHON_\nPYTHON__\n",
            "\"'`$(exit 3)${HOME}\\",
            "\\\nx\\",
            "a\tb\r",
            "世界 🐍",
            "EOF\n",
            "!!\n#",
        ];
        for text in hostile {
            let literal = python_string(text);
            let source = format!("import sys\nsys.stdout.write({literal})\n");
            assert_eq!(bash(&python(&source, ""), &[]), text);
            // As lines of their own, in a string that keeps them as they are.
            let lines = text.replace('\\', "").replace(['"', '\r'], "");
            let source = format!("import sys\nsys.stdout.write(r\"\"\"\n{lines}\n\"\"\")");
            assert_eq!(bash(&python(&source, ""), &[]), format!("\n{lines}\n"));
        }
    }

    #[test]
    fn a_nul_is_pythons_to_refuse() {
        let command = python("print(1)\0", "");
        assert!(!command.contains('\0'));
        let command = format!("{{ {command}}} 2>&1 | tail -n 1");
        assert_eq!(bash(&command, &[]), "SyntaxError: source code string cannot contain null bytes\n");
    }

    #[test]
    fn arguments_reach_python() {
        let source = "import sys\nprint(sys.argv[1:])";
        let argument = format!(" \"$INPUT_DIR\"/{}", word("it's $(id).csv"));
        assert_eq!(bash(&python(source, &argument), &[("INPUT_DIR", "/in put")]), "[\"/in put/it's $(id).csv\"]\n");
    }

    #[test]
    fn python_runs_bash() {
        let source = bash_from_python("echo \"it's\" '\\n' $((1+1)); (exit 0)");
        assert_eq!(bash(&python(&source, ""), &[]), "it's \\n 2\n");
        let source = bash_from_python("exit 7");
        let command = format!("{} echo $?", python(&source, ""));
        assert_eq!(bash(&command, &[]), "7\n");
    }
}
