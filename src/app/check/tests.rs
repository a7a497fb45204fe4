//! One mistake at a time, and all at once.

use super::*;

/// Line by line as it is said.
const ALL_AT_ONCE: &str = r###"
c.toml:2:1: [query] timeout: 0s, expected at least 1s
c.toml:3:1: [query] concurrency: 0, expected at least 1
c.toml:5:11: [server] listen[0]: 0.0.0.0:1 is reachable from outside, expected a token in [auth] or a loopback address
c.toml:6:18: [server] allowed_hosts[0]: "a/b" is not a host name, expected one without scheme and port
c.toml:8:1: [limits] depth_max: 0, expected 1 to 120
c.toml:9:1: [limits] labels_max: invalid type: string "many", expected usize
c.toml:11:1: [ingest.map[0]] topic: `#` is only allowed as the last level
c.toml:13:1: [ingest.map[1]] topic: an empty topic
c.toml:16:1: [source.mqtt[0]] url: "x", expected mqtt://HOST:PORT or mqtts://HOST:PORT
c.toml:18:1: [source.mqtt[1]] name: source name "one" is used twice, expected unique names
c.toml:20:1: [source.mqtt[1]] qos: 2 is not supported, use 1: the store drops what comes twice
c.toml:23:1: [source.nats[0]] url: "x": expected nats://HOST:PORT or tls://HOST:PORT
c.toml:26:1: [destination.webhook[0]] url: expected http://HOST[:PORT]/PATH or https://..., got "x"
c.toml:29:1: [route[0]] topic: level "##" mixes text and a wildcard, expected text, `+`, `#` or `{label}`
c.toml:30:1: [route[0]] destination: "hok" is not configured, expected one of ["hook"]
c.toml:32:10: [rules] files[0]: cannot read /nowhere/x.yml: No such file or directory (os error 2)
c.toml:33:19: [rules] packs[1]: "puls" is not a pack, expected some of ["billing", "devices", "emqx", "events", "gateway", "host", "ingestion", "mosquitto", "nats", "pulse", "scaling"]
"###;

/// What there is to say about the text of a file called `c.toml`.
fn said(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    let told = match Config::read(&file) {
        Ok(config) => check(&config).map_err(anyhow::Error::from),
        Err(err) => Err(err),
    };
    let told = format!(
        "{:#}",
        told.map_or_else(|err| err, |r| anyhow::anyhow!("{r}"))
    );
    told.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn values_of_no_use_are_refused_by_field() {
    for (text, want) in [
        (
            "[global]\nscrape_interval = \"0s\"",
            "c.toml:2:1: [global] scrape_interval: 0s, expected at least 1s",
        ),
        (
            "[global]\nscrape_interval = \"1ms\"",
            "c.toml:2:1: [global] scrape_interval: 1ms, expected at least 1s",
        ),
        (
            "query.concurrency = 0",
            "c.toml:1:7: [query] concurrency: 0, expected at least 1",
        ),
        (
            "[store]\nmemory_limit = \"1MiB\"",
            "c.toml:2:1: [store] memory_limit: 1MiB, expected 0B or at least 64MiB",
        ),
        (
            "[store]\n\nwrite_budget = \"1MiB\"",
            "c.toml:3:1: [store] write_budget: 1MiB, expected 0B or at least 100MiB",
        ),
        (
            "[store]\nhead_max = \"0B\"",
            "c.toml:2:1: [store] head_max: 0B, expected at least 1MiB",
        ),
        (
            "[metrics]\nviews = [\"node\",\n  \"nod\"]",
            "c.toml:3:3: [metrics] views[1]: \"nod\", expected some of",
        ),
        (
            "[global]\nexternal_labels = { \"1x\" = \"a\" }",
            "c.toml:2:21: [global] external_labels.1x: \"1x\" is not a label name",
        ),
        (
            "[global]\nexternal_url = \"foo\"",
            "c.toml:2:1: [global] external_url: \"foo\", expected http://",
        ),
        (
            "[server]\nlog_level = \"loud\"",
            "c.toml:2:1: [server] log_level: log level \"loud\": expected error",
        ),
        (
            "[[tenant]]\nid = \"__overflow__\"",
            "c.toml:2:1: [tenant[0]] id: \"__overflow__\" is reserved",
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "c.toml:2:26: [server] listen[1]: 127.0.0.1:1 is listened on twice",
        ),
    ] {
        let told = said(text);
        assert!(told.starts_with(want), "{text}:\n{told}\nwant\n{want}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    assert!(check(&Config::default()).is_ok());
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_their_lines() {
    let text = "[query]\ntimeout = \"0s\"\nconcurrency = 0\n\
        [server]\nlisten = [\"0.0.0.0:1\"]\nallowed_hosts = [\"a/b\"]\n\
        [limits]\ndepth_max = 0\nlabels_max = \"many\"\n\
        [[ingest.map]]\ntopic = \"a/#/b\"\n[[ingest.map]]\ntopic = \"\"\n\
        [[source.mqtt]]\nname = \"one\"\nurl = \"x\"\n\
        [[source.mqtt]]\nname = \"one\"\nurl = \"mqtt://h\"\nqos = 2\n\
        [[source.nats]]\nname = \"two\"\nurl = \"x\"\n\
        [[destination.webhook]]\nname = \"hook\"\nurl = \"x\"\n\
        [[route]]\nname = \"r\"\ntopic = \"##\"\ndestination = \"hok\"\n\
        [rules]\nfiles = [\"/nowhere/x.yml\"]\npacks = [\"pulse\", \"puls\"]\n";
    assert_eq!(said(text), ALL_AT_ONCE.trim());
}

#[test]
fn what_may_follow_from_a_mistake_of_form_is_not_told() {
    for (text, lines) in [
        // Without the token the listener would be open.
        (
            "[server]\nlisten = [\"0.0.0.0:1\"]\n[auth]\ntoken = 5\n",
            &[4][..],
        ),
        // Without its url the source would lack one.
        ("[[source.mqtt]]\nname = \"a\"\nurl = 5\nqos = 9\n", &[3]),
        // The other source has its own.
        (
            "[[source.mqtt]]\nname = \"a\"\n[[source.mqtt]]\nname = \"b\"\nurl = \"x\"\n",
            &[1, 5],
        ),
        (
            "[[route]]\nname = \"r\"\ndestination = \"w\"\n\
             [[destination.webhook]]\nname = \"w\"\nurl = 1\n",
            &[6],
        ),
        ("[query]\nfoo = 1\ntimeout = \"0s\"\n[a]\n", &[2, 3, 4]),
    ] {
        let told = said(text);
        let of = |line: &str| line.split(':').nth(1).and_then(|n| n.parse().ok());
        let found: Vec<usize> = told.lines().filter_map(of).collect();
        assert_eq!(found, lines, "{text}\n{told}");
    }
}

#[test]
fn a_tree_is_wrong_at_its_own_lines_in_either_form() {
    let told = said(
        "[alerting]\nroute = { receiver = \"a\", routes = [\n  { receiver = \"b\" },\n  \
         { mute_time_intervals = [\"night\"] },\n] }\n\
         [[alerting.receivers]]\nname = \"a\"\nwebhook_configs = [{ url = \"ftp://x\" }]\n",
    );
    let want = r###"
c.toml:3:5: [alerting] route.routes[0].receiver: undefined receiver "b" used in route
c.toml:4:28: [alerting] route.routes[1].mute_time_intervals[0]: undefined time interval "night" used in route
c.toml:8:22: [alerting] receivers[0].webhook_configs[0].url: expected http://HOST[:PORT]/PATH or https://..., got "ftp://x"
"###;
    assert_eq!(told, want.trim());
    let dir = tempfile::tempdir().unwrap();
    let am = dir.path().join("am.yml");
    std::fs::write(
        &am,
        "route:\n  receiver: a\n  routes:\n  - receiver: b\n  - {group_interval: 0s}\n\
         receivers:\n- name: a\n  slack_configs:\n  - api_url: http://h/\n    \
         title: '{{ .X'\n  webhook_configs:\n  - url: http://h/\n  - max_alerts: 1\n\
         templates: [none.tmpl]\n",
    )
    .unwrap();
    let told = said(&format!("[alerting]\nconfig_file = {am:?}\n"));
    let told = told.replace(&dir.path().display().to_string(), "DIR");
    let want = r###"
DIR/am.yml:4:5: route.routes[0].receiver: undefined receiver "b" used in route
DIR/am.yml:5:6: route.routes[1].group_interval: group_interval cannot be zero
DIR/am.yml:10:5: receivers[0].slack_configs[0].title: template: title:1: unclosed action
DIR/am.yml:13:5: receivers[0].webhook_configs[1]: missing url, expected url or url_file
DIR/am.yml:14:13: templates[0]: cannot read DIR/none.tmpl: No such file or directory (os error 2)
"###;
    assert_eq!(told, want.trim());
}

/// What there is to say about an `alertmanager.yml`.
fn said_of_tree(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let am = dir.path().join("am.yml");
    std::fs::write(&am, text).unwrap();
    let told = said(&format!("[alerting]\nconfig_file = {am:?}\n"));
    told.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn mistakes_of_form_and_of_meaning_in_a_tree_are_told_together() {
    let told = said_of_tree(
        "global: {resolve_timeout: 5x, foo: 1, smtp_from: [a]}\n\
         route:\n  receiver: nobody\n  group_by: ['...', a]\n  matchers: [a=b]\n  routes:\n  \
         - receiver: nn\n    mute_time_intervals: [zz]\n  \
         - matchers:\n    - a=b\n    - 'a=~\"[\"'\n    - a b\n    group_interval: 0s\n  \
         - {repeat_interval: soon}\n\
         receivers:\n- name: r\n  webhook_configs: [{url: nourl}]\n  \
         email_configs: [{to: a@b}]\n- name: r\n- name: q\n  webhook_configs:\n  - {}\n  - {ulr: x}\n\
         inhibit_rules: [{source_matchers: ['b=~\"(\"']}]\n\
         time_intervals: [{name: a, time_intervals: [{location: Mars/X}]}, {name: a}]\n",
    );
    let want = r###"
am.yml:1:10: global.resolve_timeout: not a valid duration: "5x"
am.yml:1:31: global.foo: unknown field `foo`
am.yml:1:39: global.smtp_from: invalid type: sequence, expected a string
am.yml:3:3: route.receiver: undefined receiver "nobody" used in route
am.yml:4:3: route.group_by: cannot have wildcard group_by (`...`) and other labels
am.yml:5:3: route.matchers: root route must not have any matchers
am.yml:7:5: route.routes[0].receiver: undefined receiver "nn" used in route
am.yml:8:27: route.routes[0].mute_time_intervals[0]: undefined time interval "zz"
am.yml:11:7: route.routes[1].matchers[1]: 
am.yml:12:7: route.routes[1].matchers[2]: 
am.yml:13:5: route.routes[1].group_interval: group_interval cannot be zero
am.yml:14:6: route.routes[2].repeat_interval: not a valid duration: "soon"
am.yml:17:22: receivers[0].webhook_configs[0].url: expected http://HOST
am.yml:19:3: receivers[1].name: notification config name "r" is not unique
am.yml:22:5: receivers[2].webhook_configs[0]: missing url
am.yml:23:6: receivers[2].webhook_configs[1].ulr: unknown field `ulr`
am.yml:24:36: inhibit_rules[0].source_matchers[0]: 
am.yml:25:46: time_intervals[0].time_intervals[0].location: 
am.yml:25:68: time_intervals[1].name: time interval "a" is not unique
"###;
    let (told, want): (Vec<&str>, Vec<&str>) =
        (told.lines().collect(), want.trim().lines().collect());
    for (told, want) in told.iter().zip(&want) {
        assert!(told.starts_with(want.trim_end()), "{told}\nwant\n{want}");
    }
    assert_eq!(told.len(), want.len(), "{told:#?}");
}

#[test]
fn what_may_follow_from_a_mistake_of_form_in_a_tree_is_not_told() {
    let lines = |text: &str| -> Vec<usize> {
        let told = said_of_tree(text);
        let of = |line: &str| line.split(':').nth(1).and_then(|n| n.parse().ok());
        told.lines().filter_map(of).collect()
    };
    for (text, want) in [
        // The name is lost.
        ("route:\n  receiver: a\nreceivers:\n- nam: a\n", &[4][..]),
        ("route:\n  receiver: a\nreceivers:\n- name: [a]\n", &[4]),
        ("route:\n  receiver: a\nreceivers: 5\n", &[3]),
        // It is not.
        (
            "route:\n  receiver: b\nreceivers:\n- name: a\n  slack_configs: 5\n",
            &[2, 5],
        ),
        (
            "route:\n  receiver: a\n  routes:\n  - mute_time_intervals: [n]\n\
             receivers:\n- name: a\ntime_intervals:\n- {name: [n]}\n",
            &[8],
        ),
        (
            "route:\n  receiver: a\n  routes:\n  - mute_time_intervals: [m]\n\
             receivers:\n- name: a\ntime_intervals:\n- {name: n, time_intervals: [{months: [x]}]}\n",
            &[4, 8],
        ),
        ("route: 5\nreceivers:\n- name: a\n- name: a\n", &[1, 4]),
        // What all receivers of the kind take.
        (
            "global:\n  slack_api_url: [x]\nroute:\n  receiver: a\nreceivers:\n- name: a\n  \
             slack_configs:\n  - channel: c\n  telegram_configs:\n  - chat_id: 1\n",
            &[2, 10],
        ),
    ] {
        assert_eq!(lines(text), want, "{text}\n{}", said_of_tree(text));
    }
}
