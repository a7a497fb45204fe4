//! Whether an `alertmanager.yml` is taken, beside the real `amtool check-config` of 0.25.
//! The cases and what was expected of each are in `tests/data/alertmanager/configs.txt`.

use std::fs;
use std::process::Command;

use pulse::config::Config;

use crate::broker::program;

/// A case: its verdict, its name, the file's text.
fn cases() -> Vec<(&'static str, &'static str, String)> {
    let text = include_str!("../data/alertmanager/configs.txt");
    let cases = text.split("\n=== ").skip(1).map(|case| {
        let (head, body) = case.split_once('\n').unwrap();
        let (verdict, name) = head.split_once(' ').unwrap();
        let body = match body.strip_prefix("@receiver\n") {
            Some(kinds) => format!("route: {{receiver: a}}\nreceivers:\n- name: a\n{kinds}"),
            None => body.to_owned(),
        };
        (verdict, name, body)
    });
    cases.collect()
}

#[test]
fn what_amtool_takes_is_taken_and_what_it_refuses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("good1.tmpl", "{{ end }}"), ("bad.tmpl", "{{ end")] {
        let text = format!("{{{{ define \"x\" }}}}y{text}");
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::write(
        dir.path().join("pulse.toml"),
        "[alerting]\nconfig_file = \"am.yml\"\n",
    )
    .unwrap();
    let file = dir.path().join("am.yml");
    let amtool = program("amtool");
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    for (verdict, name, text) in cases {
        fs::write(&file, text).unwrap();
        let config = Config::load(&dir.path().join("pulse.toml"));
        let ours = config.and_then(|config| Ok(pulse::app::check(&config)?));
        let said = ours.as_ref().err().map(|err| format!("{err:#}"));
        let said = said.unwrap_or_default();
        let wanted = matches!(verdict, "good" | "newer");
        assert_eq!(ours.is_ok(), wanted, "{name}: {said}");
        if verdict == "less" {
            let why = ["not supported", "is not a valid"];
            assert!(why.iter().any(|why| said.contains(why)), "{name}: {said}");
        }
        if !wanted {
            assert!(
                said.contains("am.yml:") || said.contains("tmpl:"),
                "{name}: {said}"
            );
        }
        let Some(amtool) = &amtool else { continue };
        let theirs = Command::new(amtool)
            .args(["check-config", file.to_str().unwrap()])
            .output()
            .unwrap();
        let wanted = matches!(verdict, "good" | "less");
        let said = String::from_utf8_lossy(&theirs.stderr);
        assert_eq!(theirs.status.success(), wanted, "amtool, {name}: {said}");
    }
}
