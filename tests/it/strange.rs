//! Strange configurations: each ends with exit code 2 and lines that name the place,
//! before anything has started, and none of them with a panic.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to find out.
const PATIENCE: Duration = Duration::from_secs(120);

/// Exit code and standard error of a process that has to end by itself.
fn ended(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let said = dir.join("said");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pulse"))
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = fs::read(&said).unwrap();
    (code, String::from_utf8_lossy(&said).into_owned())
}

/// Checks and runs the file `c.toml` of a folder; each has to say `want`, one line each.
fn check(dir: &Path, want: &[&str]) {
    for args in [
        &["check", "c.toml"][..],
        &["run", "--config", "c.toml", "--listen", "127.0.0.1:0"],
    ] {
        let (code, said) = ended(args, dir);
        let about = format!("{args:?}, {}\n--- said:\n{said}", dir.display());
        assert_eq!(code, Some(2), "{about}");
        assert!(!said.contains("panicked"), "{about}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), want.len(), "{about}");
        for (line, want) in lines.iter().zip(want) {
            assert!(line.contains(want), "want {want}\n{about}");
        }
        assert!(!dir.join("data").exists(), "{about}");
    }
}

fn check_text(text: impl AsRef<[u8]>, want: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), text).unwrap();
    check(dir.path(), want);
}

#[test]
fn wrong_types_and_numbers() {
    check_text("server = 1", &["c.toml:1:1: [server]: invalid type"]);
    check_text(
        "[[server]]\n[[query]]\n",
        &[
            "c.toml:1:3: [server]: invalid type",
            "c.toml:2:3: [query]: invalid type",
        ],
    );
    check_text(
        "server.listen = \"x\"",
        &["c.toml:1:8: [server] listen: invalid type"],
    );
    check_text(
        "server.listen = [\"127.0.0.1:70000\"]",
        &["c.toml:1:18: [server] listen[0]"],
    );
    check_text(
        "[server]\nconnections_max = 99999999999999999999\n[limits]\nlabels_max = -1\ndepth_max = 1.5\n",
        &["c.toml:2:1:", "c.toml:4:1:", "c.toml:5:1:"],
    );
    check_text(
        "[store]\nretention = \"0s\"\nlinger = \"9999999999y\"\nreserve = \"99999999999TiB\"\n",
        &["c.toml:2:1:", "c.toml:3:1:", "c.toml:4:1:"],
    );
    check_text(
        "[query]\nfeatures = [\"promql-magic\", 5]",
        &["c.toml:2:13:", "c.toml:2:29:"],
    );
    check_text(
        "[[source.mqtt]]\nname = \"a\"\nurl = \"mqtt://u:p@h\"\nqos = 3\n[[source.nats]]\nname = \"a\"\nurl = \"nats://h\"\n",
        &[
            "c.toml:3:1:",
            "c.toml:5:1: [source.nats[0]] stream",
            "c.toml:6:1:",
        ],
    );
}

#[test]
fn broken_toml() {
    check_text(
        "a = 1\na = 2\n[b]\n[b]\n",
        &["c.toml:2:1: duplicate key", "c.toml:4:2: duplicate key"],
    );
    check_text(
        "\u{feff}[server]\r\nlog_levl = \"info\"\r\n",
        &["c.toml:2:1: [server] log_levl"],
    );
    check_text(
        "[server]\nlog_level = \"a\0b\"\n\0\n",
        &["c.toml:2:15:", "c.toml:3:1:"],
    );
    check_text(b"[server]\n# \xe4\xf6\n", &["c.toml:2:3: not UTF-8"]);
    check_text("x = ".to_owned() + &"[".repeat(5_000), &["c.toml:1:"]);
    check_text(
        "[server\n[query]\ntimeout = 5s\n",
        &["c.toml:1:8:", "c.toml:3:11:"],
    );
    check_text("\u{202e}server\u{202c} = 1\n", &["c.toml:1:1:"]);
}

#[test]
fn what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    check(dir.path(), &["c.toml: No such file"]);
    fs::create_dir(&config).unwrap();
    check(dir.path(), &["c.toml: it is a directory"]);
    fs::remove_dir(&config).unwrap();
    symlink("c.toml", &config).unwrap();
    check(dir.path(), &["c.toml: Too many levels of symbolic links"]);
    fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    check(dir.path(), &["c.toml: it is larger than 16 MiB"]);
}

#[test]
fn files_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
    let with = |text: &str, want: &[&str]| {
        write("c.toml", text.as_bytes());
        check(dir.path(), want);
    };
    write("tabs.yml", b"groups:\n- name: g\n\trules: []\n");
    write("latin1.yml", b"groups: []\n# \xff\n");
    write("expr.yml", b"groups:\n- name: g\n  rules:\n  - record: r\n    expr: sum(\n  - alert: A\n    expr: x\n    annotations:\n      s: '{{ .X'\n");
    symlink("loop.yml", dir.path().join("loop.yml")).unwrap();
    with(
        "[rules]\nrule_files = [\n  \"tabs.yml\",\n  \"latin1.yml\",\n  \"loop.yml\",\n  \".\",\n  \"none.yml\",\n]\n",
        &[
            "c.toml:4:3: [rules] rule_files[1]: latin1.yml:2:3: not UTF-8",
            "c.toml:5:3: [rules] rule_files[2]: cannot read loop.yml: Too many levels",
            "c.toml:6:3: [rules] rule_files[3]: cannot read .: it is a directory",
            "c.toml:7:3: [rules] rule_files[4]: cannot read none.yml: No such file",
            "tabs.yml:3:1: a tab in the indentation",
        ],
    );
    with(
        "rules.rule_files = [\"*xpr.yml\"]",
        &["expr.yml:5:", "expr.yml:9:"],
    );
    write(
        "am.yml",
        b"route:\n  receiver: a\n  group_wiat: 5s\nreceivers:\n- name: a\n",
    );
    with(
        "alerting.config_file = \"am.yml\"",
        &["am.yml:3:3: route.group_wiat: unknown field `group_wiat`"],
    );
    write("am.yml", b"route:\n  receiver: b\n  routes: [{receiver: c}]\ntemplates: [t.tmpl]\nreceivers:\n- name: a\n");
    write("t.tmpl", b"{{ define \"x\" }}\n{{ end }}\n{{ nope }}\n");
    with(
        "alerting.config_file = \"am.yml\"",
        &[
            "am.yml:2:3: route.receiver",
            "am.yml:3:13: route.routes[0].receiver",
            "t.tmpl:3: ",
        ],
    );
    with(
        "alerting.config_file = \".\"",
        &["c.toml:1:10: [alerting] config_file: cannot read"],
    );
    write("am.yml", b"route: [\n");
    with("alerting.config_file = \"am.yml\"", &["am.yml:"]);
    write("am.yml", b"");
    with(
        "alerting.config_file = \"am.yml\"",
        &["am.yml: route: no routes provided"],
    );
    with(
        "server.dashboards_dir = \"am.yml\"",
        &["c.toml:1:8: [server] dashboards_dir: cannot read"],
    );
    with(
        "server.data_dir = \"am.yml\"",
        &["c.toml:1:8: [server] data_dir: am.yml is not a directory"],
    );
    with(
        "[[destination.webhook]]\nname = \"w\"\nurl = \"https://h\"\ntls = { ca_file = \"tabs.yml\" }\n",
        &["c.toml:4:9: [destination.webhook[0]] tls.ca_file: "],
    );
}

#[test]
fn secrets_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(
        dir.path().join("c.toml"),
        "[auth]\ntoken = { env = \"PULSE_NO_SUCH_SECRET\" }\n\
         [[tenant]]\nid = \"a\"\ntoken = { file = \"/none\" }\n\
         [[tenant]]\nid = \"b\"\ntoken = { file = \"empty\" }\n\
         [[tenant]]\nid = \"__c\"\n\
         [[source.mqtt]]\nname = \"m\"\nurl = \"mqtt://h\"\nusername = \"u\"\npassword = { env = \"PULSE_NO_SUCH_SECRET\" }\n\
         [[destination.webhook]]\nname = \"w\"\nurl = \"http://h\"\nsecret = { fil = \"x\" }\n",
    )
    .unwrap();
    check(
        dir.path(),
        &[
            "c.toml:2:1: [auth] token: read secret from $PULSE_NO_SUCH_SECRET",
            "c.toml:5:1: [tenant[0]] token: read secret from /none",
            "c.toml:8:1: [tenant[1]] token: empty",
            "c.toml:10:1: [tenant[2]] id: \"__c\" is reserved",
            "c.toml:15:1: [source.mqtt[0]] password: read secret from $PULSE_NO_SUCH_SECRET",
            "c.toml:19:1: [destination.webhook[0]] secret: unknown field `fil`, expected `file` or",
        ],
    );
}

#[test]
fn arguments_are_named_instead_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    fs::write(
        &config,
        "[server]\nlisten = [\"127.0.0.1:1\"]\nlog_level = \"info\"\n",
    )
    .unwrap();
    let args = [
        "run",
        "--config",
        "c.toml",
        "--listen",
        "0.0.0.0:1",
        "--log-level",
        "loud",
    ];
    let (code, said) = ended(&args, dir.path());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--listen: 0.0.0.0:1 is reachable"), "{said}");
    assert!(said.contains("--log-level: log level \"loud\""), "{said}");
    let (code, said) = ended(
        &["run", "--config", "c.toml", "--data-dir", "c.toml"],
        dir.path(),
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.starts_with("--data-dir: ") && said.contains("is not a directory"),
        "{said}"
    );
}
